"""``python -m release DIRECTORY``: build what a release publishes. The directory is emptied first."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from release.distribution import make_release

target = Path(sys.argv[1])
shutil.rmtree(target, ignore_errors=True)
target.mkdir(parents=True)
make_release(target)
