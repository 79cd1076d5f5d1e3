"""Imports through the queue: killed ones, several of one file at a time, and namespaces without room."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvworker import KeyValueStore
from tests.support.command_line import KVWORKER, clean_environ
from tests.support.processes import WorkerNode, wait_until

_LINES = 3000

StartImport = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start_import(tmp_path: Path, kv_config: Path) -> StartImport:
    """Start the import of a file with 3,000 lines, of which each namespace has a third."""
    file = tmp_path / "in.jsonl"
    lines = ({"namespace": f"n{number % 3}", "key": f"{number}", "value": "x" * 98} for number in range(_LINES))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [*KVWORKER, "import", str(file), "--json", "--config", str(kv_config)]

    def start_import() -> subprocess.Popen[str]:
        return subprocess.Popen(command, env=clean_environ(), stdout=subprocess.PIPE, text=True)

    return start_import


def report_of(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate(timeout=240)
    return json.loads(out)


def entries(store: KeyValueStore) -> int:
    return sum(store.usage(f"n{number}").entry_count for number in range(3))


def test_killed_imports_and_two_at_a_time_apply_each_line_once(
    start_import: StartImport, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    for _ in range(2):
        process, before = start_import(), entries(store)
        wait_until(lambda: entries(store) > before or process.poll() is not None, what="an applied batch")  # noqa: B023
        process.kill()
        process.communicate()
        before = entries(store)
    # A batch that a killed import left in the queue, or a repeated batch, must not replace newer values.
    newer = [number for number in range(0, _LINES, 100) if store.get(f"n{number % 3}", f"{number}").found]
    for number in newer:
        store.set(f"n{number % 3}", f"{number}", "newer")
    reports = [report_of(process) for process in (start_import(), start_import())]
    assert [report["applied"] + report["replayed"] for report in reports] == [_LINES, _LINES]
    assert sum(report["applied"] for report in reports) <= _LINES - before
    assert entries(store) == _LINES
    assert {store.get(f"n{number % 3}", f"{number}").value for number in newer} == {"newer"}


def test_a_file_that_finds_no_room_is_imported_in_parts_as_room_is_made(
    start_import: StartImport, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    applied = 0
    for room in (0, 0, 700, 1000):
        for number in range(3):
            store.set_quota(f"n{number}", 100 * room + 1)
        report = report_of(start_import())
        assert (report["applied"], report["replayed"]) == (3 * room - applied, applied)
        assert report["failed"] == _LINES - 3 * room == len({error["line"] for error in report["errors"]})
        applied = 3 * room
    assert entries(store) == _LINES
