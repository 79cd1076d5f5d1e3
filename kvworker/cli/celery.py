"""``worker`` and ``beat``: Celery's own commands with kvworker's application and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from kvworker.cli.options import check_listen, config_option, config_path, load_settings
from kvworker.messaging.certificates import check_certificates
from kvworker.ops.celery_processes import become_celery, with_schedule
from kvworker.settings.environment import LOG_FORMAT_VARIABLE, LOG_FORMATS, METRICS_VARIABLE, TRACES_VARIABLE

_PASS_ON: Final[dict[str, Any]] = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_log_format_option = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="The form of log lines: text, or json for one object on each line. [default: text]",
)


@click.command("worker", context_settings=_PASS_ON)
@config_option
@click.option(
    "--metrics-listen",
    metavar="[HOST:]PORT",
    callback=check_listen,
    help="Serve the worker's metrics for Prometheus, such as 9820, or 9820-9827 for several workers on one machine.",
)
@_log_format_option
@click.option("--traces", is_flag=True, help="Send spans to a collector, as OTEL_EXPORTER_OTLP_ENDPOINT says.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CELERY OPTIONS]")
def worker_command(
    config: Path | None,
    metrics_listen: str | None,
    log_format: str | None,
    arguments: tuple[str, ...],
    *,
    traces: bool,
) -> None:
    """Run a Celery worker for the store.

    It passes all options that follow on to Celery.

    A worker runs operations (queue kv) and maintenance (queue kv.maintenance); choose queues with `-Q`.
    """
    variables = {
        METRICS_VARIABLE: metrics_listen,
        LOG_FORMAT_VARIABLE: log_format,
        TRACES_VARIABLE: "1" if traces else None,
    }
    _run("worker", config, arguments, variables)


@click.command("beat", context_settings=_PASS_ON)
@config_option
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where beat keeps its schedule [default: .kvworker if it exists, else a private temporary directory].",
)
@_log_format_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CELERY OPTIONS]")
def beat_command(config: Path | None, state: Path | None, log_format: str | None, arguments: tuple[str, ...]) -> None:
    """Run Celery's beat for the store.

    It sends the sweep, recompute and prune tasks when they are due.
    """
    _run("beat", config, with_schedule(arguments, state), {LOG_FORMAT_VARIABLE: log_format})


def _run(name: str, config: Path | None, arguments: Sequence[str], variables: Mapping[str, str | None]) -> None:
    # Report wrong settings here, in one line. Celery would show a traceback.
    check_certificates(load_settings(config).policies)
    path = config_path(config)
    if path is None:
        click.echo("found no configuration file, so the defaults apply; name a file with --config", err=True)
    become_celery(name, arguments, path, {name: value for name, value in variables.items() if value})
