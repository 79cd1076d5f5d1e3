"""The first snippet of the README, run as a reader would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.acceptance.command_line import ROOT, clean_environ, running_up


def test_the_snippet_runs_next_to_kvworker_up(tmp_path: Path) -> None:
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippet is not None
    shutil.copytree(ROOT / "config", tmp_path / "config")
    with running_up(tmp_path):
        command = [sys.executable, "-c", snippet[1]]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environ(), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stderr == ""
    assert done.stdout == "{'scopes': ['read']}\n1\nTrue\n"


def test_the_first_thirty_lines_give_purpose_set_up_and_snippet() -> None:
    beginning = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert all(word in beginning for word in ("key-value store", "make demo", "make test", "store.get(", "```\n"))
