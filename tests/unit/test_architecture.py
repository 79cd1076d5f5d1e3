"""ARCHITECTURE.md names every package and only what exists, in the order in which imports may go."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES_SECTION = TEXT.split("\n## Packages\n")[1].split("\n## ")[0]
LISTED = re.findall(r"^\| `([\w.]+)` \|", PACKAGES_SECTION, re.MULTILINE)


def packages(directory: Path) -> set[str]:
    """The packages right under a directory."""
    return {path.parent.name for path in directory.glob("*/__init__.py")}


def layers() -> list[set[str]]:
    """The layers of the import contract, the highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [contract for contract in config["contracts"] if contract["type"] == "layers"]
    return [{name.strip() for name in re.split(r"[:|]", layer)} for layer in contract["layers"]]


def test_every_package_is_listed_and_every_listed_one_exists() -> None:
    assert {name for name in LISTED if (ROOT / name.replace(".", "/")).is_dir()} == {
        "tasks",
        *(f"kvworker.{name}" for name in packages(ROOT / "kvworker")),
    }
    assert all((ROOT / f"{name.replace('.', '/')}{suffix}").exists() for name in LISTED for suffix in suffixes(name))


def suffixes(name: str) -> tuple[str, ...]:
    """A listed name is a package, or else a module."""
    return ("",) if (ROOT / name.replace(".", "/")).is_dir() else (".py",)


def test_every_nested_package_is_named() -> None:
    for package in packages(ROOT / "kvworker"):
        for nested in packages(ROOT / "kvworker" / package) - {
            "migrations",
            "anthropic",
            "langgraph",
            "mcp",
            "pipeline",
        }:
            assert f"{package}/{nested}" in TEXT


def test_the_list_is_in_the_order_of_the_import_contract() -> None:
    order = {name: height for height, layer in enumerate(layers()) for name in layer}
    assert set(LISTED) <= set(order)
    assert set(order) <= set(re.findall(r"`([\w.]+)`", PACKAGES_SECTION))
    for above, below in pairwise(LISTED):
        assert order[above] <= order[below], f"{above} stands above {below}"


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:kvworker|tasks|tests|docs)/[\w/.-]*|[\w]+\.(?:py|toml))`", TEXT + CONTRIBUTING))
    named -= {"dialect.py", "engine.py", "errors.py"}  # of a dialect that does not exist yet
    assert len(named) > 30
    for path in named:
        assert (ROOT / path).exists(), path
    for statements in set(re.findall(r"`(\w+\.sql)`", TEXT + CONTRIBUTING)):
        assert list((ROOT / "kvworker/adapters").rglob(statements)), statements


def test_every_name_that_is_said_to_be_in_a_file_is_there() -> None:
    """``Class.method`` in ``file``: so the ways of a call and of a sweep can be followed by grep."""
    said = re.findall(r"`([\w.]+)`(?:,? in|, a protocol in)\s+`((?:kvworker|tasks)/[\w/]+\.py)`", TEXT)
    assert len(said) > 6
    for name, path in said:
        body: list[ast.stmt] = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        for part in name.split("."):
            found = [node for node in body if getattr(node, "name", None) == part]
            assert found, f"{name} is not in {path}"
            body = getattr(found[0], "body", [])
