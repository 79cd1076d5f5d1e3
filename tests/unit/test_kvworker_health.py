"""The check that probes run: its answers, its exit codes, and that it imports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import kvworker_health as health
from tests.support.health import PROBE, probe


def write(file: Path, *, age: float = 0.0, pid: int | None = None, state: str = "ready", born: str = "") -> None:
    beat_at = time.monotonic() - age
    problem = "the database is away" if state == "not ready" else ""
    own = pid or os.getpid()
    begin = born or health.born(own)
    record = health.Heartbeat(state, beat_at, beat_at + 30.0, own, "worker w@h", problem, begin)
    file.write_text(record.to_text())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


def test_a_process_that_beats_is_well(file: Path) -> None:
    write(file)
    assert probe(str(file)) == probe("--ready", str(file)) == "ok   worker w@h\n"
    assert probe(environ={"KVWORKER_HEARTBEAT": str(file)}) == "ok   worker w@h\n"


def test_the_time_of_a_heartbeat_is_exact(file: Path) -> None:
    """A rounded one can lie in the future, and a check that follows at once would fail."""
    beat_at = 1234.5678
    file.write_text(health.Heartbeat("ready", beat_at, beat_at + 30, os.getpid(), "worker w@h").to_text())
    assert health.read(str(file)).beat_at == beat_at


def test_one_that_waits_for_a_server_is_alive_and_not_ready(file: Path) -> None:
    write(file, state="not ready")
    assert probe(str(file)) == "ok   worker w@h\n"
    assert probe("--ready", str(file)) == "FAIL worker w@h: not ready: the database is away\n"


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda file: write(file, age=31.0), "worker w@h: frozen or wedged: its last heartbeat was 31 s ago"),
        (lambda file: write(file, age=-1000.0), "worker w@h: frozen or wedged: its last heartbeat was 0 s ago"),
        (lambda file: write(file, state="starting"), "worker w@h: still starting"),
        (lambda file: write(file, pid=2**22 + 1), "has ended"),
        (lambda file: write(file, born="1"), "has ended"),
        (lambda file: file.unlink(missing_ok=True), "no heartbeat: nothing runs that writes this file"),
        (lambda file: file.write_text(""), "unreadable: could not convert string to float"),
        (lambda file: file.write_bytes(b"\xff\0\n"), "unreadable: could not convert string to float"),
    ],
)
def test_what_fails(file: Path, break_it: Callable[[Path], object], fault: str) -> None:
    break_it(file)
    answer = probe(str(file))
    assert answer.startswith("FAIL ")
    assert fault in answer
    assert len(answer.splitlines()) == 1


def test_without_a_file_every_process_of_this_user_counts(tmp_path: Path) -> None:
    directory = tmp_path / f"kvworker-{os.geteuid()}" / "heartbeats"
    environ = {"TMPDIR": str(tmp_path)}
    assert probe(environ=environ).startswith("FAIL no worker and no beat of this user")
    directory.mkdir(parents=True, mode=0o700)
    write(directory / "worker-1")
    write(directory / "worker-2")
    assert probe(environ=environ) == "ok   worker w@h\nok   worker w@h\n"
    write(directory / "worker-2", age=31.0)
    done = subprocess.run(PROBE, capture_output=True, text=True, env=environ, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout.count("FAIL") == 1


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--reddy", 2)])
def test_its_usage(argument: str, code: int) -> None:
    done = subprocess.run([*PROBE, argument], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert "usage: kvworker-health [--ready] [FILE ...]" in done.stdout + done.stderr


def test_it_imports_nothing_that_python_does_not_import_itself() -> None:
    code = "import sys; before = {*sys.modules}; import kvworker_health; print(*{*sys.modules} - before)"
    root = Path(health.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert {*done.stdout.split()} <= {"kvworker_health", "__future__"}
