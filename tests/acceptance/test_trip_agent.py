"""The example of a run: an agent that is killed after each of its effects performs each of them once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path


def run_agent(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.trip_agent", "trip-7", "--state", str(state), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_an_agent_that_is_killed_again_and_again_books_charges_and_mails_once(tmp_path: Path) -> None:
    for effect in ("book", "charge", "mail"):
        assert run_agent(tmp_path, "--die-in", effect).returncode == -signal.SIGKILL
    for _ in range(2):
        ended = run_agent(tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines() == [
            "Your trip is booked: book, charge, mail.",
            "- book, reference trip-7/000002",
            "- charge, reference trip-7/000004",
            "- mail, reference trip-7/000006",
        ]
    effects = [json.loads(line) for line in (tmp_path / "effects.jsonl").read_text().splitlines()]
    assert [effect["kind"] for effect in effects] == ["book", "charge", "mail"]
