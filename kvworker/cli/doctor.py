"""``doctor``: one line per check, and what to do about those that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from kvworker.cli.options import config_option, config_path, json_option, load_settings
from kvworker.cli.output import console, print_json
from kvworker.errors import ConfigurationError
from kvworker.messaging.certificates import check_certificates
from kvworker.ops.doctor import CHECKS, Finding, run_checks


@click.command("doctor")
@click.option(
    "--check",
    "names",
    multiple=True,
    type=click.Choice(list(CHECKS)),
    help="Run only this check, besides that of the configuration; may be repeated.",
)
@json_option
@config_option
def doctor_command(config: Path | None, names: tuple[str, ...], *, as_json: bool) -> None:
    """Check that everything works, and say what to fix.

    Looks at configuration, broker, database, schema and clocks, and asks a worker.
    """
    findings = []
    for finding in _examine(config, names):
        findings.append(finding)
        if not as_json:
            _print(finding)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(finding) for finding in findings]})
    sys.exit(0 if healthy else 1)


def _examine(config: Path | None, names: tuple[str, ...]) -> Iterator[Finding]:
    path = config_path(config)
    try:
        settings = load_settings(path)
        check_certificates(settings.policies)
    except ConfigurationError as error:
        yield Finding("config", ok=False, detail=str(error), fix="correct it; docs/configuration.md has every key")
        return
    yield Finding("config", ok=True, detail=str(path) if path else "no file: defaults and environment")
    yield from run_checks(settings, names)


def _print(finding: Finding) -> None:
    mark = Text("ok  ", style="green") if finding.ok else Text("FAIL", style="bold red")
    out = console()
    out.print(mark, Text(f"{finding.name:<8} {finding.detail}"), soft_wrap=True)
    if finding.fix:
        out.print(Text(f"     {finding.fix}"), soft_wrap=True)
