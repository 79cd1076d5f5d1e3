"""Beat's schedule file holds times only: nothing in it runs code, stops beat or delays a task."""

from __future__ import annotations

import json
import pickle
import shelve
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from kvworker.worker.beat_scheduler import PATH, JsonScheduler
from tasks import app as bundled_app


@pytest.fixture(autouse=True)
def heartbeat(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path_factory.mktemp("heartbeat") / "beat"
    monkeypatch.setenv("KVWORKER_HEARTBEAT", str(file))
    return file


@pytest.fixture
def app() -> Celery:
    app = Celery(set_as_current=False)
    app.conf.beat_schedule = {"sweep": {"task": "t", "schedule": 60.0}}
    return app


def scheduler(app: Celery, file: Path) -> JsonScheduler:
    return JsonScheduler(app=app, schedule_filename=str(file))


class Planted:
    """An object whose pickle runs code when it is loaded."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.evidence,)


def test_the_worker_application_uses_it() -> None:
    assert bundled_app.conf.beat_scheduler == PATH


def test_a_restarted_beat_knows_when_it_last_sent_a_task(app: Celery, tmp_path: Path) -> None:
    first = scheduler(app, tmp_path / "schedule")
    entry = first.schedule["sweep"]
    entry.last_run_at = sent_at = entry.default_now() - timedelta(seconds=30)
    first.sync()
    assert scheduler(app, tmp_path / "schedule").schedule["sweep"].last_run_at == sent_at
    assert [path.name for path in tmp_path.iterdir()] == ["schedule"]
    assert (tmp_path / "schedule").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("write", ["pickle", "shelve"])
def test_a_planted_pickle_runs_nothing(app: Celery, tmp_path: Path, write: str) -> None:
    file, evidence = tmp_path / "schedule", tmp_path / "evidence"
    if write == "pickle":
        file.write_bytes(pickle.dumps(Planted(evidence)))
    else:
        with shelve.open(str(file)) as planted:  # noqa: S301 - the test's own file
            planted["entries"] = Planted(evidence)
    assert scheduler(app, file).schedule["sweep"].task == "t"
    assert not evidence.exists()
    assert "sweep" in json.loads(file.read_text())["last_run_at"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"last_run_at": 5}',
        '{"last_run_at": {"sweep": 5}}',
        '{"last_run_at": {"sweep": "soon"}}',
        '{"last_run_at": {"sweep": "9999-01-01T00:00:00+00:00"}}',
        '{"last_run_at": {"sweep": "2020-01-01T00:00:00"}}',
        '{"last_run_at": {"other": "2020-01-01T00:00:00+00:00"}}',
        "[" * 200_000,
    ],
)
def test_a_file_with_anything_else_in_it_delays_no_task(app: Celery, tmp_path: Path, text: str) -> None:
    (tmp_path / "schedule").write_text(text)
    entries = scheduler(app, tmp_path / "schedule").schedule
    assert list(entries) == ["sweep"]
    assert entries["sweep"].is_due().next <= 60


def test_a_link_is_replaced_and_its_target_kept(app: Celery, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    (tmp_path / "schedule").symlink_to(target)
    scheduler(app, tmp_path / "schedule")
    assert target.read_text() == "theirs"


def test_a_directory_that_is_gone_stops_nothing(app: Celery, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scheduler(app, tmp_path / "missing" / "schedule").sync()
    assert "cannot write the schedule file" in caplog.text


def test_a_heartbeat_that_cannot_be_written_ends_beat_with_one_line(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KVWORKER_HEARTBEAT", str(tmp_path / "missing" / "file"))
    with pytest.raises(SystemExit) as ended:
        scheduler(app, tmp_path / "schedule")
    assert ended.value.code == 1
    (record,) = caplog.records
    assert record.getMessage().startswith("beat cannot run: KVWORKER_HEARTBEAT: ")


def test_the_loop_turns_often_enough_to_beat(app: Celery, tmp_path: Path, heartbeat: Path) -> None:
    made = scheduler(app, tmp_path / "schedule")
    made.schedule["sweep"].last_run_at = made.schedule["sweep"].default_now()
    assert made.tick() <= 2.0
    assert "ready" in heartbeat.read_text()
    made.close()
    assert not heartbeat.exists()
