"""A plain installation, without what the tests bring along, has all that kvworker imports."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

_IMPORTS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = set(sys.argv[1:])
sys.meta_path.insert(0, Absent())
from pkgutil import resolve_name
from kvworker.cli.group import COMMANDS
for place in COMMANDS.values():
    resolve_name(place)
import kvworker.adapters.postgres, kvworker.adapters.sqlite, kvworker.client, kvworker.inline, tasks
import celery.bin.celery, celery.backends.redis, kombu.transport.redis, kombu.transport.pyamqp
"""


def _required_by(distribution: str, extras: frozenset[str]) -> Iterator[Requirement]:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for text in declared if distribution == "kvworker" else requires(distribution) or ():
        requirement = Requirement(text)
        environments: list[dict[str, str]] = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def _installed_with_kvworker() -> set[str]:
    """The distributions that its requirements bring, and theirs."""
    found, waiting = set[tuple[str, frozenset[str]]](), [("kvworker", frozenset[str]())]
    while waiting:
        item = waiting.pop()
        if item not in found:
            found.add(item)
            waiting += [(canonicalize_name(one.name), frozenset(one.extras)) for one in _required_by(*item)]
    return {name for name, _ in found}


def test_a_plain_installation_has_all_that_is_imported() -> None:
    brought = _installed_with_kvworker()
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if not brought & {canonicalize_name(name) for name in distributions}
    ]
    assert "pytest" in absent
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS, *absent], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr == ""
