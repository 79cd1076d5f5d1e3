"""``migrate`` updates the database's schema, or shows what that would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kvworker.cli.options import config_option, json_option, load_settings
from kvworker.cli.output import print_json
from kvworker.ops.migration import MigratedStore, PlannedMigration, migrate_store, plan_store_migration


@click.command("migrate")
@click.option("--plan", "shows_plan", is_flag=True, help="Change nothing; show each statement and the lock it takes.")
@click.option("--sql", "prints_sql", is_flag=True, help="Change nothing; print SQL for psql or sqlite3.")
@click.option(
    "--finish", is_flag=True, help="End the support of the previous release, of which no worker may run any more."
)
@json_option
@config_option
def migrate_command(config: Path | None, *, shows_plan: bool, prints_sql: bool, finish: bool, as_json: bool) -> None:
    """Create or update the database schema. You can repeat it, and run it from several machines at once.

    Afterwards workers of this release and of the previous one can use the schema. Once all workers are of this release,
    run it again with --finish.
    """
    settings = load_settings(config)
    if prints_sql and (shows_plan or as_json):
        raise click.UsageError("--sql goes with neither --plan nor --json")
    if prints_sql:
        click.echo("".join(_script(plan) for plan in plan_store_migration(settings, finish=finish)), nl=False)
    elif shows_plan:
        _show_plans(plan_store_migration(settings, finish=finish), as_json=as_json)
    else:
        _show_result(migrate_store(settings, finish=finish), as_json=as_json)


def _show_result(migrated: MigratedStore, *, as_json: bool) -> None:
    if as_json:
        expanded = {"expanded": migrated.expanded} if migrated.expanded else {}
        print_json({"schema_version": migrated.version, **expanded})
    elif migrated.version is None:
        click.echo("the adapter has no schema to migrate")
    elif migrated.expanded is None:
        click.echo(f"the schema is at version {migrated.version}")
    else:
        click.echo(f"the schema is at version {migrated.version}, {_expanded_text(migrated.expanded)}")


def _expanded_text(version: str) -> str:
    return f"expanded to {version}; upgrade all workers, and then run `kvworker migrate --finish`"


def _show_plans(plans: Sequence[PlannedMigration], *, as_json: bool) -> None:
    if as_json:
        print_json([_plan_data(plan) for plan in plans])
        return
    for plan in plans:
        if plan.expanded:
            click.echo(f"{plan.adapter}: nothing to do now; the schema is {_expanded_text(plan.expanded)}")
        else:
            click.echo(f"{plan.adapter}: {'nothing to do' if not plan.steps else 'each step is one transaction'}")
        for step in plan.steps:
            click.echo(f"\n{step.title}")
            for statement in step.statements:
                click.echo(f"  {' '.join(statement.text.split())}")
                if statement.lock:
                    click.echo(f"    locks {statement.table}: {statement.lock}; {statement.effect}")


def _plan_data(plan: PlannedMigration) -> dict[str, Any]:
    expanded = {"expanded": plan.expanded} if plan.expanded else {}
    return {"adapter": plan.adapter, "steps": [asdict(step) for step in plan.steps], **expanded}


def _script(plan: PlannedMigration) -> str:
    return f"-- The {plan.adapter} adapter. Stop at an error: psql --set ON_ERROR_STOP=1\n{plan.script}"
