"""``dashboard``: serves pages that show the store."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import click

from kvworker.access import Address, TokenFile
from kvworker.cli.options import access_metrics_option, config_option, load_settings, persona_option
from kvworker.cli.tokens import tokens_option
from kvworker.errors import extra_needed
from kvworker.messaging.log_lines import EscapedLines


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9810, show_default=True, help="Port; 0 picks a free one."
)
@click.option("--any-port", is_flag=True, help="Pick a free port if the port is in use.")
@click.option("--allow-remote", is_flag=True, help="Listen for other machines. Viewers then need tokens.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that viewers may use. You can repeat the option.",
)
@tokens_option
@access_metrics_option
@click.option("--allow-writes", is_flag=True, help="Let viewers delete entries, set quotas and clear namespaces.")
@persona_option
@config_option
def dashboard_command(  # noqa: PLR0913 - one for each option
    config: Path | None,
    host: str,
    port: int,
    *,
    any_port: bool,
    allow_remote: bool,
    allowed_hosts: tuple[str, ...],
    tokens_file: Path | None,
    metrics_listen: str | None,
    allow_writes: bool,
    persona: str | None,
) -> None:
    """Show the store in a web browser.

    The pages show queues, workers, usage against quota, expiry, sweeps and what was refused in the last hour, and each
    entry. They are read-only without --allow-writes. With --tokens or policies.tokens_file, viewers need a token.
    """
    if not has_dashboard():
        raise click.ClickException(extra_needed("the dashboard", "dashboard"))
    from kvworker.ops.dashboard.serving import Access, serve_dashboard  # noqa: PLC0415 - needs the extra

    settings = load_settings(config)
    named = tokens_file or settings.policies.tokens_file
    address = Address(host, port, allowed_hosts, any_port)
    if not address.is_loopback and not (allow_remote and named):
        raise click.UsageError(
            f"other machines can reach --host {host}, so viewers need tokens: make them with `kvworker tokens create`,"
            " then add --allow-remote"
        )
    _show_warnings()
    access = Access(TokenFile(Path(named)) if named else None, persona, allow_writes, metrics_listen)
    serve_dashboard(settings, address, access, lambda url: click.echo(f"dashboard at {url}", err=True))


def has_dashboard() -> bool:
    """Return whether the dashboard's extra is installed."""
    return all(find_spec(name) is not None for name in ("starlette", "uvicorn", "jinja2"))


def _show_warnings() -> None:
    """Log denied calls, among others, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(EscapedLines("%(message)s"))
    logging.basicConfig(handlers=[handler])
