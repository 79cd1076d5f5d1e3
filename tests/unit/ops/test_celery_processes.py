"""The checks and choices that precede the start of a Celery process."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvworker.ops.celery_processes import ROOT, celery_command, celery_environment, schedule_directory

HIDING = ["tasks.py", "tasks/__init__.py", "beat_schedule.py", "kvworker.py", "kvworker/__init__.py", "celery.py"]


def started(directory: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Let Celery load our application in a directory, and explain its command."""
    return subprocess.run(
        celery_command("beat", ["--help"]), cwd=directory, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", HIDING)
def test_a_module_of_the_working_directory_hides_none_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    done = started(tmp_path, celery_environment(None))
    assert "Start the beat periodic task scheduler." in done.stdout, done.stderr


def test_a_module_on_the_python_path_hides_no_task(tmp_path: Path) -> None:
    for name in ("tasks.py", "beat_schedule.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = started(tmp_path, {**celery_environment(None), "PYTHONPATH": path})
    assert "Start the beat periodic task scheduler." in done.stdout, done.stderr


def test_a_relative_python_path_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "lib")
    environ = celery_environment(Path("kvworker.yaml"))
    assert str(tmp_path / "lib") in environ["PYTHONPATH"].split(os.pathsep)
    assert str(ROOT) in environ["PYTHONPATH"].split(os.pathsep)
    assert environ["KVWORKER_CONFIG"] == str(tmp_path / "kvworker.yaml")


def test_the_schedule_is_never_kept_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    private = schedule_directory(None)
    assert private.parent == tmp_path / "tmp"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    (tmp_path / ".kvworker").mkdir()
    assert schedule_directory(None) == Path(".kvworker")
    assert schedule_directory(tmp_path / "given") == tmp_path / "given"


def test_an_installation_starts_from_any_directory(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = started(tmp_path, environ)
    if "No module named 'kvworker'" in done.stderr:
        pytest.skip("kvworker is not installed here, only importable from its own directory")
    assert "Start the beat periodic task scheduler." in done.stdout, done.stderr


def test_a_pool_whose_package_is_missing_is_one_line(tmp_path: Path) -> None:
    command = celery_command("worker", ["--pool=eventlet"])
    done = subprocess.run(
        command, cwd=tmp_path, env=celery_environment(None), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the pool cannot be used (No module named 'eventlet'); install the package that it needs\n",
    )
