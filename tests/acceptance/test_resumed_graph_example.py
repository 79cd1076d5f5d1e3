"""The example of a graph that is killed and resumed books one room."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import ROOT, clean_environ


def run_example(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.resumed_graph", str(directory), *options]
    environ = clean_environ({"LANGSMITH_TRACING": "false"})
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False)


def test_a_killed_and_resumed_graph_books_once(tmp_path: Path) -> None:
    for _ in range(2):
        killed = run_example(tmp_path, "--die")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_example(tmp_path)
    assert (resumed.returncode, resumed.stdout) == (0, "booked room 12\n"), resumed.stderr
    assert (tmp_path / "bookings").read_text() == "12\n"
