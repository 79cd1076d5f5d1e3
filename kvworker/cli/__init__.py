"""The command line: ``kvworker`` and ``python -m kvworker``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from kvworker.cli.options import config_path
from kvworker.cli.root import cli
from kvworker.errors import KVStoreError, QueueError

_INTERRUPTED = 130
_NO_FILE = (
    " (no configuration file was found, so the defaults were used: give one with --config, or start `kvworker up`)"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when it did what it was asked, else with one clear line on stderr."""
    try:
        code = cli.main(arguments, prog_name="kvworker", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _report(error)
    except KVStoreError as error:
        hint = _NO_FILE if isinstance(error, QueueError) and not _has_file(arguments) else ""
        click.echo(f"Error: {error}{hint}", err=True)
        code = 1
    except BrokenPipeError:
        # Whoever read our output has had enough.
        _discard_output()
        code = 1
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        click.echo(f"Error: {reason}", err=True)
        _discard_output()
        code = 1
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _has_file(arguments: Sequence[str] | None) -> bool:
    given = any(argument.startswith("--config") for argument in (sys.argv if arguments is None else arguments))
    return given or config_path(None) is not None


def _discard_output() -> None:
    """Send what cannot be written nowhere: the interpreter would complain when it flushes at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: click.ClickException) -> int:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see `{error.ctx.command_path} --help`)"
    click.echo(f"Error: {error.format_message()}{hint}", err=True)
    return error.exit_code
