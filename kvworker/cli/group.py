"""The ``kvworker`` group. It imports a command's module only when you use the command: some imports are slow."""

from __future__ import annotations

from pkgutil import resolve_name

import click

from kvworker.__version__ import __version__
from kvworker.wording import did_you_mean

#: Where each command is, in the order in which the help lists them.
COMMANDS = {
    "up": "kvworker.cli.up:up_command",
    "worker": "kvworker.cli.celery:worker_command",
    "beat": "kvworker.cli.celery:beat_command",
    "migrate": "kvworker.cli.migrate:migrate_command",
    "get": "kvworker.cli.entries:get_command",
    "set": "kvworker.cli.entries:set_command",
    "delete": "kvworker.cli.entries:delete_command",
    "increment": "kvworker.cli.entries:increment_command",
    "touch": "kvworker.cli.entries:touch_command",
    "persist": "kvworker.cli.entries:persist_command",
    "append": "kvworker.cli.values:append_command",
    "merge": "kvworker.cli.values:merge_command",
    "pop": "kvworker.cli.values:pop_command",
    "list": "kvworker.cli.listing:list_command",
    "batch": "kvworker.cli.batch:batch_command",
    "steps": "kvworker.cli.steps:steps_command",
    "usage": "kvworker.cli.namespaces:usage_command",
    "quota": "kvworker.cli.namespaces:quota_command",
    "clear": "kvworker.cli.namespaces:clear_command",
    "namespaces": "kvworker.cli.database:namespaces_command",
    "sweep": "kvworker.cli.database:sweep_command",
    "recompute": "kvworker.cli.database:recompute_command",
    "verify": "kvworker.cli.verify:verify_command",
    "import": "kvworker.cli.transfer:import_command",
    "export": "kvworker.cli.transfer:export_command",
    "stats": "kvworker.cli.stats:stats_command",
    "metrics": "kvworker.cli.metrics:metrics_command",
    "dashboard": "kvworker.cli.dashboard:dashboard_command",
    "config": "kvworker.cli.config:config_command",
    "doctor": "kvworker.cli.doctor:doctor_command",
    "health": "kvworker.cli.health:health_command",
    "tools": "kvworker.cli.tools:tools_command",
    "tokens": "kvworker.cli.tokens:tokens_command",
    "mcp": "kvworker.cli.mcp:mcp_command",
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is needed, so that each starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands without importing them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command, or return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve_name(COMMANDS[cmd_name])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may be meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"No such command {args[0]!r}{hint and '; ' + hint}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command. Those of a command belong after it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            raise click.UsageError(
                f"{error.option_name} belongs after the command, if it has that option", ctx
            ) from None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="kvworker %(version)s")
def cli() -> None:
    """A namespaced key-value store for AI-agent tools, run through a task queue.

    `kvworker up` runs the whole store on this machine. Every command reads its configuration from --config,
    else from the file that KVWORKER_CONFIG names, else from ./.kvworker/kvworker.yaml (which `up` writes).
    Without a file it uses the defaults and the environment.
    """
