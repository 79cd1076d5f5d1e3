"""``tokens``: makes, lists and revokes the tokens that open the MCP server over HTTP and the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from kvworker.access import Grant, TokenStore
from kvworker.cli.options import PositiveNumber, config_option, json_option, load_settings
from kvworker.cli.output import console, make_table, print_json, shown_name
from kvworker.errors import ConfigurationError
from kvworker.settings import PoliciesSettings
from kvworker.tools.policy import Policy

_MAX_DAYS = 3650

tokens_option = click.option(
    "--tokens",
    "tokens_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file of the tokens [default: policies.tokens_file].",
)


@click.group("tokens")
def tokens_command() -> None:
    """Make, list and revoke the tokens that open the MCP server over HTTP and the dashboard.

    Their file holds hashes only. Servers read it again when it changes.
    """


@tokens_command.command("create")
@click.argument("name")
@click.option("--persona", metavar="NAME", help="The persona of the token's holder.")
@click.option("--namespace-prefix", metavar="TEXT", help="Limit the holder to the namespaces under TEXT.")
@click.option("--expires-days", type=PositiveNumber(_MAX_DAYS), metavar="DAYS")
@tokens_option
@config_option
def create_command(
    config: Path | None,
    name: str,
    persona: str | None,
    namespace_prefix: str | None,
    expires_days: float | None,
    tokens_file: Path | None,
) -> None:
    """Make a token and print it. It is not kept anywhere and cannot be shown again."""
    policies = load_settings(config).policies
    if persona is not None:
        Policy(policies).allowed_tools(persona)
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    store = TokenStore(token_path(policies, tokens_file))
    token = store.create(name, persona=persona, namespace_prefix=namespace_prefix, expires_at=expires_at)
    click.echo(token)
    click.echo(f"its hash is in {store.path}; keep the token, since it is not shown again", err=True)


@tokens_command.command("list")
@json_option
@tokens_option
@config_option
def list_command(config: Path | None, tokens_file: Path | None, *, as_json: bool) -> None:
    """Show the tokens without anything secret."""
    grants = TokenStore(token_path(load_settings(config).policies, tokens_file)).grants()
    if as_json:
        print_json([grant.model_dump(mode="json", exclude={"token_sha256"}) for grant in grants])
        return
    table = make_table("name", "persona", "namespace prefix", "expires")
    for grant in grants:
        persona, prefix = (shown_name(text) if text else "" for text in (grant.persona, grant.namespace_prefix))
        table.add_row(grant.name, persona, prefix, _expiry_cell(grant))
    console().print(table)


@tokens_command.command("revoke")
@click.argument("name")
@tokens_option
@config_option
def revoke_command(config: Path | None, name: str, tokens_file: Path | None) -> None:
    """Remove a token. Running servers refuse it from then on."""
    TokenStore(token_path(load_settings(config).policies, tokens_file)).revoke(name)


def token_path(policies: PoliciesSettings, tokens_file: Path | None) -> Path:
    """Return the file of the tokens: the given one, or else the configuration's.

    Raises:
        ConfigurationError: Neither is named.
    """
    named = tokens_file or policies.tokens_file
    if named is None:
        raise ConfigurationError("no file of tokens is named: set policies.tokens_file, or give --tokens FILE")
    return Path(named)


def _expiry_cell(grant: Grant) -> str:
    if grant.expires_at is None:
        return "never"
    return f"{grant.expires_at:%Y-%m-%d %H:%M} UTC{' (expired)' if grant.has_expired else ''}"
