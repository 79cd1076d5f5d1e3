"""``mcp``: serves the tools over MCP."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import click

from kvworker.cli.options import config_option, load_settings, persona_option
from kvworker.errors import extra_needed
from kvworker.messaging.log_lines import EscapedLines


@click.command("mcp")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="http is MCP's streamable HTTP.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on for HTTP.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port for HTTP; 0 picks a free one."
)
@click.option(
    "--allow-remote", is_flag=True, help="Listen for other machines. The server does not authenticate clients."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that clients may use. You can repeat the option.",
)
@persona_option
@click.option("--namespace-prefix", metavar="TEXT", help="Serve only namespaces under TEXT.")
@click.option("--session-prefix", is_flag=True, help="Give every session its own namespaces.")
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Sessions that may be open at the same time over HTTP.",
)
@click.option(
    "--session-idle-seconds",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=1800,
    show_default=True,
    help="End a session over HTTP after this time without a request.",
)
@config_option
def mcp_command(  # noqa: PLR0913 - one for each option
    config: Path | None,
    transport: str,
    host: str,
    port: int,
    *,
    allow_remote: bool,
    allowed_hosts: tuple[str, ...],
    persona: str | None,
    namespace_prefix: str | None,
    session_prefix: bool,
    max_sessions: int,
    session_idle_seconds: float,
) -> None:
    """Serve the tools to MCP clients.

    It uses standard input and output, or HTTP at /mcp.

    With --namespace-prefix or --session-prefix clients never see the prefix: their "notes" is the store's
    "TEXT/notes". A persona's patterns apply to the whole names, such as "TEXT/*" or "mcp-session-*". No client can
    reach a session's namespaces after the session ends (over HTTP also when it was idle), so let its entries expire.
    """
    if namespace_prefix is not None and session_prefix:
        raise click.UsageError("--namespace-prefix and --session-prefix exclude each other")
    _check_extra()
    from kvworker.integrations.mcp.address import Address  # noqa: PLC0415 - needs the extra
    from kvworker.integrations.mcp.serving import Audience, SessionLimits, serve_http, serve_stdio  # noqa: PLC0415 - needs the extra

    address = Address(host, port, allowed_hosts)
    if transport == "http" and not (address.is_loopback or allow_remote):
        raise _reachable(host)
    settings = load_settings(config)
    audience = Audience(persona, namespace_prefix, session_prefix)
    # Log denied calls, among others, to standard error. The MCP library does not show them.
    handler = logging.StreamHandler()
    handler.setFormatter(EscapedLines("%(message)s"))
    logging.basicConfig(handlers=[handler])
    if transport == "stdio":
        serve_stdio(settings, audience)
    else:
        limits = SessionLimits(max_sessions, session_idle_seconds)
        serve_http(settings, audience, address, limits, lambda url: click.echo(f"MCP server at {url}", err=True))


def _reachable(host: str) -> click.UsageError:
    return click.UsageError(
        f"other machines can reach --host {host}, and the server does not authenticate clients: put a proxy that"
        " does in front of it, and add --allow-remote"
    )


def _check_extra() -> None:
    if find_spec("mcp") is None:
        raise click.ClickException(extra_needed("the MCP server", "mcp"))
