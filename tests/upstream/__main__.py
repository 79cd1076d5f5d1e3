"""``python -m tests.upstream`` downloads packages from a registry, so ``make test`` does not run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {"langgraph-checkpoint": version("langgraph-checkpoint"), "langgraph-checkpoint-sqlite": "3.1.2"}
TESTS = {
    "langgraph-checkpoint": ("test_store.py",),
    "langgraph-checkpoint-sqlite": ("test_store.py", "test_async_store.py", "test_ttl.py"),
}
#: Packages that the tests import and kvworker's environment lacks. They are installed outside that environment.
TOOLS = ("aiosqlite==0.22.1", "pytest-asyncio==1.5.0", "pytest-mock==3.17.0", "sqlite-vec==0.1.9")
PYTEST = ("-q", "--tb=short", "--disable-warnings", "--timeout=60", "-p", "no:cacheprovider", "-p", "upstream.plugin")
#: Replaces LangGraph's options, which need a plugin that repeats tests until they pass.
OPTIONS = ("-oaddopts=", "-oasyncio_mode=auto", "-oasyncio_default_fixture_loop_scope=function", "--rootdir=.")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "-qq", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run(command, check=False).returncode:
        sys.exit("pip could not download LangGraph's tests or their dependencies")


def _published_tests(suite: str, folder: Path) -> Path:
    _pip("download", f"{suite}=={VERSIONS[suite]}", "--no-binary", suite, "--dest", str(folder))
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        # Extracts only the tests: the package beside them would shadow the installed one.
        source.extractall(folder, [member for member in source if "/tests/" in member.name], filter="data")
    (tests,) = folder.glob("*/tests")
    return tests.parent


def _plugins(folder: Path) -> Path:
    """Make a folder with the plugin alone. Others in ``tests`` have the names of standard modules."""
    plugins = folder / "plugins"
    plugins.mkdir()
    (plugins / "upstream").symlink_to(ROOT / "tests" / "upstream")
    return plugins


def _passes(suite: str, folder: Path, tools: Path) -> bool:
    click.secho(f"{suite} {VERSIONS[suite]}", bold=True)
    where = _published_tests(suite, folder)
    command = [sys.executable, "-m", "pytest", *PYTEST, *OPTIONS, f"--suite={suite}"]
    paths = os.pathsep.join(map(str, (_plugins(folder), tools, ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder)}
    tests = [f"tests/{file}" for file in TESTS[suite]]
    return subprocess.run([*command, *tests], cwd=where, env=environment, check=False).returncode == 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder, "tools")
        sqlite = f"langgraph-checkpoint-sqlite=={VERSIONS['langgraph-checkpoint-sqlite']}"
        _pip("install", sqlite, *TOOLS, "--target", str(tools))
        passed = [_passes(suite, Path(folder, suite), tools) for suite in TESTS]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
