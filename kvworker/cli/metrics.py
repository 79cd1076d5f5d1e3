"""``metrics``: the exporter for the metrics of the whole."""

from __future__ import annotations

import time
from pathlib import Path

import click

from kvworker.cli.options import check_listen, config_option, load_settings
from kvworker.cli.signals import interruptible
from kvworker.ops.overview.exporter import running_exporter


@click.command("metrics")
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="9809",
    show_default=True,
    callback=check_listen,
    help="Where to listen; a port alone is for this machine only.",
)
@click.option(
    "--top",
    type=click.IntRange(0, 1000),
    default=20,
    show_default=True,
    help="How many of the fullest namespaces to name; 0 names none.",
)
@config_option
def metrics_command(config: Path | None, listen: str, top: int) -> None:
    """Serve the metrics of queues, workers and stores for Prometheus.

    It reads them when it is asked, at most every two seconds, and takes five seconds at most. One process is enough,
    however many workers there are. `kvworker worker --metrics-listen` serves those of a single worker.
    """
    with interruptible(), running_exporter(load_settings(config), listen, top) as url:
        click.echo(f"metrics at {url}", err=True)
        while True:
            time.sleep(3600)
