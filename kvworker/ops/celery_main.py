"""Celery's worker and beat with kvworker's application: ``python -P -m kvworker.ops.celery_main worker``.

``-P`` keeps the working directory off the path until ``kvworker`` is imported, so a file there cannot hide the package.
The two commands are Celery's own. ``celery`` itself would first import all its commands and every installed plugin,
which takes a fifth of a worker's start. A broken plugin would end it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from celery import maybe_patch_concurrency

#: Celery imports it by this name. The package is imported by now, so Python does not search for it again.
APPLICATION: Final = "kvworker.ops.bundled_app:app"


def main() -> None:
    """Run Celery's worker or beat with this process's arguments, and exit with its exit code."""
    # A user's adapter may be a module in the working directory. It comes last, so that it hides nothing.
    sys.path.append(str(Path.cwd()))
    # A pool of green threads patches the standard library, which must come before what uses it.
    try:
        maybe_patch_concurrency()
    except IndexError:
        pass  # `-P` without a name, which click reports
    except ImportError as error:
        sys.exit(f"Error: the pool cannot be used ({error}); install the package that it needs")
    from celery.bin.base import CLIContext  # noqa: PLC0415 - after the patch
    from celery.bin.beat import beat  # noqa: PLC0415
    from celery.bin.worker import worker  # noqa: PLC0415

    @click.group(commands={"worker": worker, "beat": beat})
    @click.option("--quiet", is_flag=True)
    @click.pass_context
    def celery(context: click.Context, /, *, quiet: bool) -> None:
        from kvworker.ops.bundled_app import app  # noqa: PLC0415

        context.obj = CLIContext(app=app, no_color=bool(os.environ.get("NO_COLOR")), workdir=None, quiet=quiet)
        sys.argv[:] = _restartable(sys.argv)

    celery(auto_envvar_prefix="CELERY", prog_name="celery")


def _restartable(arguments: Sequence[str]) -> list[str]:
    """Return what Celery starts Python with to make this process start again.

    ``--detach`` passes all but the first of them to Celery's own command line. On SIGHUP a worker without a terminal
    starts again with all of them.
    """
    from kvworker.ops.celery_processes import LAUNCHER  # noqa: PLC0415 - after the patch

    if {"--detach", "-D"}.intersection(arguments):
        return [arguments[0], "-A", APPLICATION, *arguments[1:]]
    return [*LAUNCHER, *arguments[1:]]


if __name__ == "__main__":
    main()
