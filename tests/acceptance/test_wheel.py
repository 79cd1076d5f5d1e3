"""The wheel: its files, its metadata, and the errors of type checkers in a program that uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import kvworker
from tests.support.documents import ROOT

PROGRAM = ROOT / "tests" / "typing" / "user_program.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


@pytest.fixture(scope="module")
def user_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and the packages of this one but not its kvworker."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory)
    site_packages = directory / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    # The .pth files in a directory that a .pth file names are not read: one of them is the editable kvworker.
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "bin" / "python"


def mypy_options(user_python: Path) -> list[str | Path]:
    # The cache is kept, since most of the time goes into packages that stay the same.
    cache = ("--cache-dir", str(ROOT / ".mypy_cache" / "wheel"))
    return ["--strict", "--config-file", os.devnull, "--python-executable", user_python, *cache]


def run(command: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    # Pyright looks for a newer release of itself unless told not to, and for a Node.js other than its own.
    environ |= {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYRIGHT_PYTHON_GLOBAL_NODE": "0"}
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=500, check=False)


def test_the_wheel_has_every_file_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("kvworker", "tasks")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == files | {"beat_schedule.py", "kvworker_health.py"}
    assert {"kvworker/py.typed", "tasks/py.typed"} <= shipped
    suffixes = {".py", ".pyi", ".sql", ".lua", ".typed", ".json", ".html", ".css", ".js", ".svg"}
    assert {Path(name).suffix for name in shipped} <= suffixes


def test_the_wheel_carries_the_licence(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_metadata_has_the_packages_version(metadata: Message) -> None:
    assert metadata["Version"] == kvworker.__version__
    assert metadata["Author"] == "the kvworker authors"


def test_the_installed_wheel_is_what_the_environment_imports(user_python: Path, tmp_path: Path) -> None:
    done = run([user_python, "-c", "import kvworker, tasks; print(kvworker.__file__, tasks.__file__)"], tmp_path)
    assert done.stderr == ""
    assert all(Path(file).is_relative_to(user_python.parents[1]) for file in done.stdout.split())


def test_mypy_accepts_a_users_program(user_python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_bytes(PROGRAM.read_bytes())
    done = run([sys.executable, "-m", "mypy", *mypy_options(user_python), program], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_a_users_program(user_python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_bytes(PROGRAM.read_bytes())
    done = run([sys.executable, "-m", "pyright", "--pythonpath", user_python, program], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_checker_refuses_a_wrong_program(checker: str, user_python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from kvworker import KeyValueStore\nKeyValueStore.from_config().set('n', 'k', object())\n")
    options = mypy_options(user_python) if checker == "mypy" else ["--pythonpath", user_python]
    done = run([sys.executable, "-m", checker, *options, program], tmp_path)
    assert done.returncode == 1
    assert "program.py:2" in done.stdout


def test_the_wheel_has_a_program_for_probes_that_imports_no_package(wheel: Path, user_python: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        programs = archive.read(name).decode()
    assert "kvworker-health = kvworker_health:main" in programs.splitlines()
    code = (
        "import sys; from kvworker_health import main; code = main(); print('kvworker' in sys.modules); sys.exit(code)"
    )
    done = run([user_python, "-c", code, "missing"], user_python.parent)
    assert done.stdout.splitlines() == ["FAIL missing: no heartbeat: nothing runs that writes this file", "False"]
