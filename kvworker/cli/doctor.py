"""``doctor``: one line for each check, and a fix for each that failed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from kvworker.cli.options import config_option, json_option
from kvworker.cli.output import console, print_json
from kvworker.model import escaped_lines
from kvworker.ops.doctor import CHECKS, Finding, check_deployment


@click.command("doctor")
@click.option(
    "--check",
    "names",
    multiple=True,
    type=click.Choice(["config", *CHECKS]),
    help="Run only this check, after that of the configuration, which always runs. You can repeat the option.",
)
@json_option
@config_option
def doctor_command(config: Path | None, names: tuple[str, ...], *, as_json: bool) -> None:
    """Check that everything works, and say what to fix.

    It checks the configuration, the broker, the result backend, the database, its schema and the clocks, and sends
    a probe to a worker. The exit code is 1 if a check fails.
    """
    findings = []
    for finding in check_deployment(config, names):
        findings.append(finding)
        if not as_json:
            _print(finding)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(finding) for finding in findings]})
    sys.exit(0 if healthy else 1)


def _print(finding: Finding) -> None:
    mark = Text("ok  ", style="green") if finding.ok else Text("FAIL", style="bold red")
    out = console()
    out.print(mark, Text(escaped_lines(f"{finding.name:<8} {finding.detail}")), soft_wrap=True)
    if finding.fix:
        out.print(Text(escaped_lines(f"     {finding.fix}")), soft_wrap=True)
