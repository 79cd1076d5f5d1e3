"""The group of all commands. A command's module is imported when it is asked for: some are heavy."""

from __future__ import annotations

from importlib import import_module

import click

from kvworker.__version__ import __version__

#: The module of each command.
HOMES = {
    "up": "up",
    "worker": "celery",
    "beat": "celery",
    "migrate": "database",
    "get": "entries",
    "set": "entries",
    "delete": "entries",
    "increment": "entries",
    "touch": "keys",
    "persist": "keys",
    "list": "listing",
    "batch": "batch",
    "usage": "namespaces",
    "quota": "namespaces",
    "clear": "namespaces",
    "namespaces": "database",
    "sweep": "database",
    "recompute": "database",
    "import": "transfer",
    "export": "transfer",
    "doctor": "doctor",
    "tools": "tools",
    "mcp": "mcp",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - see above
        home = HOMES.get(cmd_name)
        if home is None:
            return None
        command: click.Command = getattr(import_module(f"kvworker.cli.{home}"), f"{cmd_name}_command")
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="kvworker %(version)s")
def cli() -> None:
    """A namespaced key-value store for AI-agent tools, run through a task queue.

    `kvworker up` runs all of it on this machine. Every command reads its configuration from --config,
    else from the file that KVWORKER_CONFIG names, else from ./.kvworker/kvworker.yaml (which `up` writes),
    else it takes the defaults and the environment.
    """
