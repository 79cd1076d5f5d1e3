"""``mcp``: serves the tools over MCP."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvworker.access import Address, TokenFile
from kvworker.cli.options import PositiveNumber, access_metrics_option, config_option, load_settings, persona_option
from kvworker.cli.tokens import tokens_option
from kvworker.errors import extra_needed
from kvworker.messaging.log_lines import EscapedLines
from kvworker.settings import Settings

if TYPE_CHECKING:
    from kvworker.integrations.mcp.admission import Admission


def _check_addresses(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for address in given:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise click.BadParameter(f"{address!r} is not an IP address or a network, such as 10.0.0.0/8") from None
    return given


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
@click.option("--allow-remote", is_flag=True, help="Listen for other machines. Clients then need tokens.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that clients may use. You can repeat the option.",
)
@tokens_option
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    callback=_check_addresses,
    help="A proxy whose X-Forwarded-For names the client whose failed attempts count. You can repeat the option.",
)
@access_metrics_option
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
    type=PositiveNumber(86400),
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
    tokens_file: Path | None,
    trusted_proxies: tuple[str, ...],
    metrics_listen: str | None,
    persona: str | None,
    namespace_prefix: str | None,
    session_prefix: bool,
    max_sessions: int,
    session_idle_seconds: float,
) -> None:
    """Serve the tools to MCP clients.

    It uses standard input and output, or HTTP at /mcp. Over HTTP, clients need a token if --tokens,
    policies.tokens_file or policies.oauth is given. A token's persona and prefix count before these options.

    With --namespace-prefix or --session-prefix clients never see the prefix: their "notes" is the store's
    "TEXT/notes". A persona's patterns apply to the whole names, such as "TEXT/*" or "mcp-session-*". No client can
    reach a session's namespaces after the session ends (over HTTP also when it was idle), so let its entries expire.
    """
    if namespace_prefix is not None and session_prefix:
        raise click.UsageError("--namespace-prefix and --session-prefix exclude each other")
    _check_extra()
    from kvworker.integrations.mcp.audience import Audience  # noqa: PLC0415 - needs the extra
    from kvworker.integrations.mcp.serving import SessionLimits, serve_http, serve_stdio  # noqa: PLC0415 - needs the extra

    address = Address(host, port, allowed_hosts)
    if (is_remote := transport == "http" and not address.is_loopback) and not allow_remote:
        raise _reachable(host)
    settings = load_settings(config)
    audience = Audience(persona, namespace_prefix, session_prefix)
    _show_warnings()
    if transport == "stdio":
        serve_stdio(settings, audience)
        return
    admission = replace(_admission(settings, tokens_file, trusted_proxies), metrics_listen=metrics_listen)
    if not admission.is_required and is_remote:
        raise _reachable(host)
    serve_http(settings, audience, address, admission, SessionLimits(max_sessions, session_idle_seconds), _announce)


def _admission(settings: Settings, tokens_file: Path | None, trusted_proxies: tuple[str, ...]) -> Admission:
    from kvworker.integrations.mcp.admission import Admission  # noqa: PLC0415 - needs the extra

    named = tokens_file or settings.policies.tokens_file
    return Admission(TokenFile(Path(named)) if named else None, settings.policies.oauth, trusted_proxies)


def _announce(url: str) -> None:
    click.echo(f"MCP server at {url}", err=True)


def _show_warnings() -> None:
    """Log denied calls, among others, to standard error. The MCP library does not show them."""
    handler = logging.StreamHandler()
    handler.setFormatter(EscapedLines("%(message)s"))
    logging.basicConfig(handlers=[handler])


def _reachable(host: str) -> click.UsageError:
    return click.UsageError(
        f"other machines can reach --host {host}, so clients need tokens: make them with `kvworker tokens create`, or"
        " name an authorization server in policies.oauth; then add --allow-remote"
    )


def _check_extra() -> None:
    if find_spec("mcp") is None:
        raise click.ClickException(extra_needed("the MCP server", "mcp"))
