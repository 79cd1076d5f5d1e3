"""Starts Celery's worker and beat with the ``tasks`` that ship with kvworker."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from kvworker.settings.config_file import UP_CONFIG
from kvworker.settings.environment import CONFIG_VARIABLE
from kvworker.settings.private_paths import private_directory

#: The directory that holds the distribution's modules: ``kvworker``, ``tasks`` and ``beat_schedule`` side by side.
ROOT = Path(__file__).resolve().parents[2]
#: Python's arguments that start Celery's worker or beat with our application.
LAUNCHER: Final = ("-P", "-m", "kvworker.ops.celery_main")

#: The advice on a state directory that others can write.
OTHER_STATE: Final = "name another directory with --state"


def celery_command(name: str, arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """Build the command line of a Celery process with the application that ships with kvworker.

    Unlike ``celery -A tasks``, it also works in a directory that holds another ``tasks.py``.

    Args:
        name: Celery's command, ``worker`` or ``beat``.
        arguments: Celery's options for that command.
        quiet: Omit Celery's banner.
    """
    return [sys.executable, *LAUNCHER, *(["--quiet"] if quiet else []), name, *arguments]


def celery_environment(config: Path | None) -> dict[str, str]:
    """Build the environment of a Celery process: this one's, the configuration file, and a path to our modules."""
    environment = dict(os.environ)
    if config is not None:
        environment[CONFIG_VARIABLE] = str(config.resolve())
    if path := _python_path(environment.get("PYTHONPATH", "")):
        environment["PYTHONPATH"] = path
    return environment


def become_celery(
    name: str, arguments: Sequence[str], config: Path | None, variables: Mapping[str, str] | None = None
) -> NoReturn:
    """Replace this process by Celery's worker or beat.

    Args:
        name: Celery's command, ``worker`` or ``beat``.
        arguments: Celery's options for that command.
        config: The configuration file; None uses the defaults and the environment.
        variables: Variables of the environment that it gets beside this process's.
    """
    command = celery_command(name, arguments)
    environment = {**celery_environment(config), **(variables or {})}
    os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter


def with_schedule(arguments: Sequence[str], directory: Path | None) -> Sequence[str]:
    """Add ``--schedule`` to beat's options, unless they name a schedule file already.

    Raises:
        ConfigurationError: Another user could write to the directory.
    """
    if any(argument.startswith(("-s", "--schedule")) for argument in arguments):
        return arguments
    return ("--schedule", str(schedule_directory(directory) / "beat-schedule"), *arguments)


def schedule_directory(wanted: Path | None) -> Path:
    """Choose where beat keeps its schedule: ``wanted``, else ``.kvworker`` if it exists, else a private temporary one.

    Raises:
        ConfigurationError: Another user could write to the directory.
    """
    default = UP_CONFIG.parent
    temporary = Path(tempfile.gettempdir()) / f"kvworker-{os.getuid()}"
    directory = wanted or (default if os.path.lexists(default) else temporary)
    return private_directory(directory, instead=OTHER_STATE)


def _python_path(current: str) -> str:
    paths = _absolute_paths(part for part in current.split(os.pathsep) if part)
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    if ROOT not in installed and str(ROOT) not in paths:
        paths.insert(0, str(ROOT))
    return os.pathsep.join(paths)


def _absolute_paths(paths: Iterable[str]) -> list[str]:
    return [str(Path(path).absolute()) for path in paths]
