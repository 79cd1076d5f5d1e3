"""The command line: ``kvworker`` and ``python -m kvworker``.

Each module holds the click commands of one topic; ``group`` maps the commands to their modules. Commands parse options,
delegate, and print. The package may import ``ops``, ``integrations`` and everything below them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence

import click

from kvworker.cli.group import cli
from kvworker.cli.options import config_path
from kvworker.cli.output import print_error
from kvworker.cli.signals import SignalInterrupt
from kvworker.errors import KVStoreError, QueueError

_SIGNALLED = 128
# Older releases of click than 8.2 have no such error: they print the help and exit with 0.
_NO_ARGUMENTS: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
_NO_FILE = " (found no configuration file, so the defaults apply: name a file with --config, or start `kvworker up`)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit the process.

    The exit code is 0 on success, 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM, and else 1. A failure prints
    one line on standard error.

    Args:
        arguments: The command line without the program's name; None takes the process's own.
    """
    _open_closed_streams()
    sys.exit(_exit_code(sys.argv[1:] if arguments is None else arguments))


def _open_closed_streams() -> None:
    """Open the standard streams that were closed (``>&-``), or a connection to a server would become one of them.

    To read or write them fails, except for standard error: an error that cannot be told is still an exit code.
    """
    for name, mode, flags in (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="kvworker", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return _report(error)
    except KVStoreError as error:
        return _fail(f"{error}{_hint(error, arguments)}")
    except BrokenPipeError:
        # The reader of our output closed it, as `head` does.
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        return _fail(_reason(error))
    except (click.Abort, KeyboardInterrupt) as error:
        return _code_after_signal(error)
    return code if isinstance(code, int) else 0


def _reason(error: OSError) -> str:
    if error.errno == errno.EBADF:
        return "standard input or output is closed, and this command needs it"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def _code_after_signal(error: BaseException) -> int:
    cause = error.__cause__ or error  # click replaces the exception
    return _SIGNALLED + (cause.number if isinstance(cause, SignalInterrupt) else signal.SIGINT)


def _fail(reason: str) -> int:
    print_error(f"Error: {reason}")
    return 1


def _hint(error: KVStoreError, arguments: Sequence[str]) -> str:
    given = any(argument.startswith("--config") for argument in arguments)
    return _NO_FILE if isinstance(error, QueueError) and not given and config_path(None) is None else ""


def _discard_output() -> None:
    """Discard output that cannot be written, or the interpreter would report it when it flushes at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: click.ClickException) -> int:
    if isinstance(error, _NO_ARGUMENTS):
        error.show()
        return error.exit_code
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see `{error.ctx.command_path} --help`)"
    print_error(f"Error: {error.format_message()}{hint}")
    return error.exit_code
