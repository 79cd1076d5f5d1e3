"""``kvworker health``: the same check, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvworker.cli.health import health_command
from tests.unit.test_kvworker_health import write


def test_it_shows_each_process_and_fails_if_one_does(tmp_path: Path) -> None:
    well, waits, frozen = (tmp_path / name for name in ("well", "waits", "frozen"))
    write(well)
    write(waits, state="not ready")
    write(frozen, age=40.0)
    runner = CliRunner()
    shown = runner.invoke(health_command, [str(well), str(waits)])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].startswith("ok   worker w@h  process ")
    assert lines[0].endswith(", ready, 0 s ago")
    assert "not ready: the database is away" in lines[1]
    assert runner.invoke(health_command, ["--ready", str(waits)]).exit_code == 1
    shown = runner.invoke(health_command, ["--json", str(well), str(frozen), str(tmp_path / "none")])
    assert shown.exit_code == 1
    report = json.loads(shown.output)
    assert not report["ok"]
    faults = [process["fault"] for process in report["processes"]]
    assert faults[0] == ""
    assert faults[1] == "frozen or wedged: its last heartbeat was 40 s ago"
    assert faults[2].startswith("no heartbeat")


def test_it_says_so_if_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("KVWORKER_HEARTBEAT", raising=False)
    shown = CliRunner().invoke(health_command)
    assert shown.exit_code == 1
    assert f"writes a heartbeat into {tmp_path}" in shown.output
