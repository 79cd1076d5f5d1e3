"""``make demo`` on a small package, with the same command, stack and pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.source_files import COUNTERS, count_directly, python_files
from kvworker import InlineKeyValueStore, Settings

PACKAGE = "kombu.utils"
COUNTERS_NAMESPACE = f"pipeline.counters.{PACKAGE}"

pytestmark = pytest.mark.slow


def run_demo(state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.demo", "--state", str(state), PACKAGE]
    environ = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)


def open_store(state: Path) -> InlineKeyValueStore:
    """Open the demonstration's database while no other process uses it."""
    adapter = {"url": f"sqlite:///{state}/kv.sqlite", "reuse_conversation_store": False, "migrate_on_start": True}
    kv_store = {"default_adapter": "sqlite", "adapters": {"sqlite": adapter}}
    return InlineKeyValueStore(Settings.from_mapping({"tools": {"kv_store": kv_store}}))


def processes_mentioning(state: Path) -> list[str]:
    command_lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [command_line for command_line in command_lines if str(state) in command_line]


def test_the_totals_are_right_and_every_process_is_stopped(tmp_path: Path) -> None:
    demo = run_demo(tmp_path)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    files = len(python_files(PACKAGE))
    assert f"{files} files, {files} from the memo, 0 increments applied" in demo.stdout
    assert "WRONG" not in demo.stdout
    assert "NamespaceQuotaExceededError" in demo.stdout
    assert processes_mentioning(tmp_path) == []
    with open_store(tmp_path) as store:
        counters = {counter: store.get(COUNTERS_NAMESPACE, counter).value for counter in COUNTERS}
    assert counters == count_directly(PACKAGE)


def test_a_wrong_total_fails_the_command(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.increment(COUNTERS_NAMESPACE, "lines")
    demo = run_demo(tmp_path)
    assert demo.returncode == 1, demo.stdout + demo.stderr
    assert "WRONG" in demo.stdout
    assert "kvworker's counters differ from the direct count" in demo.stdout
    assert processes_mentioning(tmp_path) == []
