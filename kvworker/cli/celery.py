"""``worker`` and ``beat``: Celery's own commands with kvworker's application and configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from kvworker.cli.options import config_option, config_path, load_settings
from kvworker.messaging.certificates import check_certificates
from kvworker.ops.celery_processes import celery_command, celery_environment, check_modules_are_ours, schedule_directory

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("worker", context_settings=_PASS_ON)
@config_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CELERY OPTIONS]")
def worker_command(config: Path | None, arguments: tuple[str, ...]) -> None:
    """Run a worker: `celery -A tasks worker`.

    Whatever options of Celery follow are passed on.

    It takes operations (queue kv) and maintenance (queue kv.maintenance); `-Q` chooses.
    """
    _become("worker", config, arguments)


@click.command("beat", context_settings=_PASS_ON)
@config_option
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the schedule is kept [default: .kvworker if it exists, else a private temporary directory].",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CELERY OPTIONS]")
def beat_command(config: Path | None, state: Path | None, arguments: tuple[str, ...]) -> None:
    """Run the beat: `celery -A tasks beat`.

    It sends sweep, recompute and prune when they are due.
    """
    if not _names_schedule(arguments):
        arguments = ("--schedule", str(schedule_directory(state) / "beat-schedule"), *arguments)
    _become("beat", config, arguments)


def _become(name: str, config: Path | None, arguments: Sequence[str]) -> None:
    # Wrong settings are told here, in one line; in Celery they would be a traceback.
    check_certificates(load_settings(config).policies)
    if config_path(config) is None:
        click.echo("no configuration file was found, so the defaults are used; give one with --config", err=True)
    check_modules_are_ours(Path.cwd())
    command = celery_command(name, arguments)
    os.execve(command[0], command, celery_environment(config_path(config)))  # noqa: S606 - our own interpreter


def _names_schedule(arguments: Sequence[str]) -> bool:
    return any(argument.startswith(("-s", "--schedule")) for argument in arguments)
