"""The heartbeat of a process, the ownership of its file, and the messages to systemd."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker import state

import kvworker_health as health
from kvworker.errors import ConfigurationError
from kvworker.worker import heartbeat as heartbeat_module
from kvworker.worker.heartbeat import Heartbeat
from kvworker.worker.liveness import Liveness
from tests.support.health import FakeSystemd, fake_systemd


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with fake_systemd(tmp_path, 30) as systemd:
        yield systemd


def started(file: Path, systemd: FakeSystemd | None = None, **options: float) -> Heartbeat:
    environ = {health.VARIABLE: str(file), **(systemd.environ if systemd else {})}
    made = Heartbeat("worker", "worker w@h", environ, **options)
    made.start()
    return made


def written(file: Path) -> health.Heartbeat:
    return health.read(str(file))


def test_the_states_of_a_process(file: Path) -> None:
    heartbeat = started(file)
    assert written(file).fault() == "still starting"
    heartbeat.beat("the broker is away\nfor now")
    assert written(file).fault() == ""
    assert written(file).fault(ready=True) == "not ready: the broker is away for now"
    heartbeat.beat()
    assert written(file).fault(ready=True) == ""
    assert (written(file).name, written(file).pid) == ("worker w@h", os.getpid())
    heartbeat.stop()
    heartbeat.beat("anything")
    assert written(file).fault() == ""
    assert written(file).fault(ready=True) == "not ready: stopping"
    heartbeat.end()
    assert not list(file.parent.iterdir())


def test_a_heartbeat_is_written_when_it_is_due_or_tells_something_new(file: Path) -> None:
    heartbeat = started(file)
    heartbeat.beat()
    first = file.stat().st_ino
    heartbeat.beat()
    assert file.stat().st_ino == first
    heartbeat.beat("a problem")
    assert file.stat().st_ino != first
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_wedged_process_fails_at_once_and_may_recover(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = started(file)
    for _ in range(3):
        heartbeat.give_up("no slot comes free")
    assert written(file).fault() == "wedged: no slot comes free"
    assert caplog.text.count("this worker is wedged") == 1
    heartbeat.beat()
    assert written(file).fault(ready=True) == ""


def test_systemd_hears_when_it_is_ready_alive_and_stopping(file: Path, systemd: FakeSystemd) -> None:
    heartbeat = started(file, systemd)
    heartbeat.beat("the broker is away")
    waiting = ["WATCHDOG=1", "STATUS=not ready: the broker is away", "EXTEND_TIMEOUT_USEC=30000000"]
    assert systemd.reports() == waiting
    heartbeat.beat()
    assert systemd.reports()[3:] == ["WATCHDOG=1", "STATUS=ready", "READY=1"]
    heartbeat.give_up("no slot comes free")
    heartbeat.stop()
    assert systemd.reports()[6:] == ["STATUS=wedged: no slot comes free", "STOPPING=1", "STATUS=stopping"]


def test_a_loop_that_runs_tasks_gets_a_longer_watchdog(file: Path, systemd: FakeSystemd) -> None:
    started(file, systemd, longest_task_seconds=60)
    assert systemd.reports() == ["WATCHDOG_USEC=90000000"]
    assert 85 < written(file).alive_until - time.monotonic() <= 90


def test_another_process_s_watchdog_is_not_ours(file: Path, systemd: FakeSystemd) -> None:
    systemd.environ |= {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1000"}
    heartbeat = started(file, systemd)
    assert heartbeat.beat_seconds == heartbeat_module.BEAT_SECONDS


def test_a_watchdog_shortens_the_pauses(file: Path, systemd: FakeSystemd) -> None:
    systemd.environ["WATCHDOG_USEC"] = "3000000"
    heartbeat = started(file, systemd)
    assert heartbeat.beat_seconds == 1.0
    assert written(file).alive_until - written(file).beat_at == pytest.approx(3.0, abs=0.01)


def test_a_systemd_that_hears_nothing_harms_nothing(file: Path, systemd: FakeSystemd) -> None:
    heartbeat = started(file, systemd)
    systemd.close()
    for number in range(3):
        heartbeat.beat(str(number))
    assert written(file).problem == "2"


def test_a_file_of_a_process_that_lives_is_not_taken(file: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    now = time.monotonic()
    born = health.born(other.pid)
    file.write_text(health.Heartbeat(health.READY, now, now + 30, other.pid, "worker other@h", "", born).to_text())
    with pytest.raises(ConfigurationError, match=rf"process {other.pid} \(worker other@h\) writes its heartbeat into"):
        started(file)
    other.communicate(b"\n", timeout=60)
    started(file)
    assert written(file).pid == os.getpid()


def test_the_file_of_a_process_whose_number_another_one_has_now_is_taken(file: Path) -> None:
    """A container that is restarted finds the file of its predecessor, which had the same number."""
    now = time.monotonic()
    file.write_text(health.Heartbeat(health.READY, now, now + 30, os.getppid(), "worker old@h", "", "1").to_text())
    assert written(file).fault() == f"process {os.getppid()} has ended"
    started(file)
    assert written(file).fault() == "still starting"


def test_a_file_that_cannot_be_written_is_an_error_if_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"KVWORKER_HEARTBEAT: .*No such file or directory"):
        started(tmp_path / "missing" / "heartbeat")


def test_a_disk_that_is_full_later_ends_no_worker(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeat = started(file)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heartbeat_module, "replace_private_file", refuse)
    for number in range(3):
        heartbeat.beat(str(number))
    assert caplog.text.count("cannot write the heartbeat") == 1
    assert written(file).state == health.STARTING


def test_the_default_directory_is_private_and_holds_no_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv(health.VARIABLE, raising=False)
    assert health.default_files() == []
    dead = subprocess.Popen(["true"])
    dead.wait(timeout=60)
    heartbeat = Heartbeat("beat", "beat h", {})
    directory = Path(health.default_directory())
    directory.mkdir(parents=True, mode=0o700)
    (directory / "worker-1").write_text(health.Heartbeat(health.READY, 0, 1, dead.pid, "worker").to_text())
    heartbeat.start()
    assert health.default_files() == [str(directory / f"beat-{os.getpid()}")]
    directory.chmod(0o777)
    with pytest.raises(PermissionError, match="other users could have written"):
        health.default_files()


def test_without_a_usable_directory_a_worker_runs_without_a_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / f"kvworker-{os.geteuid()}").symlink_to(tmp_path)
    heartbeat = Heartbeat("worker", "worker w@h", {})
    with caplog.at_level(logging.WARNING):
        heartbeat.start()
    assert "writes no heartbeat" in caplog.text
    heartbeat.beat()
    heartbeat.end()


class Worker(SimpleNamespace):
    """A worker as ``Liveness`` sees it: two slots in a pool."""

    def __init__(self, pool: type = object) -> None:
        super().__init__(pool_cls=pool, hostname="w@h", max_concurrency=None, pool=SimpleNamespace(num_processes=2))


class Request:
    """A task that holds a slot."""


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    requests = [Request(), Request()]
    monkeypatch.setattr(state, "reserved_requests", {*requests})
    return requests


def liveness(file: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, worker: Any = None) -> Liveness:
    monkeypatch.setenv(health.VARIABLE, str(file))
    made = Liveness(worker or Worker(), SimpleNamespace(problem=""), seconds)  # type: ignore[arg-type]
    made.heartbeat.start()
    return made


def test_a_pool_that_starts_tasks_is_busy_and_one_that_starts_none_is_wedged(
    file: Path, monkeypatch: pytest.MonkeyPatch, requests: list[Request]
) -> None:
    made = liveness(file, monkeypatch, seconds=0.0)
    count = [0]
    monkeypatch.setattr(state, "all_total_count", count)
    for _ in range(3):
        count[0] += 1
        made.beat()
        assert written(file).fault() == ""
    time.sleep(0.001)
    made.beat()
    assert written(file).fault().startswith("wedged: no slot of the pool has come free for")
    monkeypatch.setattr(state, "reserved_requests", {requests[0]})
    made.beat()
    assert written(file).fault() == ""


def test_only_the_main_loop_beats(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = liveness(file, monkeypatch, seconds=60.0)
    monkeypatch.setattr(made, "_loop_thread", -1)
    made.beat()
    assert written(file).state == health.STARTING


def test_the_pool_solo_may_be_silent_for_as_long_as_a_task_takes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = liveness(file, monkeypatch, 60.0, Worker(SoloPool))
    made.beat()
    assert written(file).alive_until - written(file).beat_at == pytest.approx(90.0, abs=0.01)
