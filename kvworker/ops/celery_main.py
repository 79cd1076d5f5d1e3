"""Celery's command line with kvworker's application: ``python -P -m kvworker.ops.celery_main worker``.

``-P`` keeps the working directory off the path until ``kvworker`` is imported, so a file there cannot hide the package.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from celery.__main__ import main as celery_main

#: Celery imports it by this name. The package is imported by now, so Python does not search for it again.
APPLICATION: Final = "kvworker.ops.bundled_app:app"


def main() -> None:
    """Run Celery with this process's arguments, and exit with Celery's exit code."""
    # A user's adapter may be a module in the working directory. It comes last, so that it hides nothing.
    sys.path.append(str(Path.cwd()))
    sys.argv[1:1] = ["-A", APPLICATION]
    celery_main()


if __name__ == "__main__":
    main()
