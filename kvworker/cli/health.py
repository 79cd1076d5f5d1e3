"""``health``: the heartbeats of the workers and the beat of this machine."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from rich.text import Text

import kvworker_health
from kvworker.cli.options import json_option
from kvworker.cli.output import console, print_json
from kvworker.model import escaped_lines


@click.command("health")
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False), metavar="[FILE]...")
@click.option("--ready", is_flag=True, help="Fail too if one runs and cannot reach its servers.")
@json_option
def health_command(files: tuple[str, ...], *, ready: bool, as_json: bool) -> None:
    """Show whether the workers and the beat of this machine are alive.

    It reads their heartbeats: from FILE, else from the file that KVWORKER_HEARTBEAT names, else those of all processes
    of this user. The exit code is 1 if one fails, or if there is none. Probes run `kvworker-health`, which is faster.
    """
    try:
        found = [_report(file, ready=ready) for file in files or kvworker_health.default_files()]
    except PermissionError as error:
        raise click.ClickException(str(error)) from None
    healthy = bool(found) and not any(report["fault"] for report in found)
    if as_json:
        print_json({"ok": healthy, "processes": found})
    else:
        for report in found:
            _print(report)
        if not found:
            click.echo(
                f"no worker and no beat of this user writes a heartbeat into {kvworker_health.default_directory()}"
            )
    sys.exit(0 if healthy else 1)


def _report(file: str, *, ready: bool) -> dict[str, Any]:
    name, fault = kvworker_health.check(file, ready=ready)
    report: dict[str, Any] = {"name": name, "file": file, "fault": fault}
    try:
        heartbeat = kvworker_health.read(file)
    except (OSError, ValueError):
        return report
    age_seconds = round(time.monotonic() - heartbeat.beat_at, 1)
    known = {"pid": heartbeat.pid, "state": heartbeat.state, "problem": heartbeat.problem, "age_seconds": age_seconds}
    return report | known


def _print(report: dict[str, Any]) -> None:
    mark = Text("FAIL", style="bold red") if report["fault"] else Text("ok  ", style="green")
    detail = report["fault"]
    if not detail:
        problem = report["problem"] and f": {report['problem']}"
        detail = f"process {report['pid']}, {report['state']}{problem}, {max(0.0, report['age_seconds']):.0f} s ago"
    console().print(mark, Text(escaped_lines(f"{report['name']}  {detail}")), soft_wrap=True)
