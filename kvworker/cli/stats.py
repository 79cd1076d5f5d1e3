"""``stats``: what happens now in queues, workers and stores."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import click
from rich.console import RenderableType
from rich.live import Live

from kvworker.cli.options import Seconds, config_option, json_option, load_settings
from kvworker.cli.output import console, print_json
from kvworker.cli.signals import interruptible
from kvworker.cli.stats_tables import overview_tables
from kvworker.ops.overview.collector import OverviewCollector

_LEAST_INTERVAL_SECONDS = 0.1
#: The time between two counts of operations without --watch.
_RATE_SECONDS = 1.0


@click.command("stats")
@click.option("--watch", is_flag=True, help="Show it again and again until you interrupt it.")
@click.option(
    "--interval", type=Seconds(), default=2.0, show_default=True, metavar="SECONDS", help="The pause of --watch."
)
@click.option(
    "--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many of the fullest namespaces."
)
@json_option
@config_option
def stats_command(config: Path | None, interval: float, top: int, *, watch: bool, as_json: bool) -> None:
    """Show queues, workers and the fullest namespaces.

    It asks the broker, the workers and the database itself, and waits for no longer than five seconds. The first
    lines name each lock that keeps operations waiting and each part that cannot be read. If there is such a part, the
    exit code is 1. With --watch and --json it prints a document on each line.
    """
    if interval < _LEAST_INTERVAL_SECONDS:
        raise click.UsageError(f"--interval is at least {_LEAST_INTERVAL_SECONDS:g}")
    with closing(OverviewCollector(load_settings(config), top=top)) as collector:
        if watch:
            _watch(collector, interval, as_json=as_json)
        overview = collector.collect()
        if overview.workers.value is not None:
            # The difference between two counts tells the rate.
            time.sleep(_RATE_SECONDS)
            overview = collector.collect()
    if as_json:
        print_json(overview.to_dict())
    else:
        console().print(overview_tables(overview))
    sys.exit(1 if overview.problems() else 0)


def _watch(collector: OverviewCollector, interval: float, *, as_json: bool) -> None:
    """Show overviews until the process is told to end. A terminal shows each in place of the last one."""
    out = console()
    live = Live(console=out, auto_refresh=False) if out.is_terminal and not as_json else None
    show: Callable[[RenderableType], None] = (
        out.print if live is None else lambda shown: live.update(shown, refresh=True)
    )
    with interruptible(), live or nullcontext():
        while True:
            overview = collector.collect()
            if as_json:
                print_json(overview.to_dict())
                sys.stdout.flush()
            else:
                show(overview_tables(overview))
            time.sleep(interval)
