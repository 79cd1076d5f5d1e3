"""Migrates the schema of every adapter in use, or shows what that would do."""

from __future__ import annotations

from dataclasses import dataclass

from kvworker.adapters.providers import adapters_in_use
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.migrations import PlannedStep
from kvworker.ops.database import open_adapter
from kvworker.settings import Settings


@dataclass(frozen=True)
class MigratedStore:
    """The schema of an adapter after a migration.

    Attributes:
        version: The version of the schema; None if the adapter has none.
        expanded: The newer version that the schema is expanded to; None if the migration is finished.
    """

    version: str | None
    expanded: str | None = None


@dataclass(frozen=True)
class PlannedMigration:
    """The plan of a migration for the database of one adapter.

    Attributes:
        adapter: The adapter's name.
        steps: What is to be done.
        script: The same as a SQL script.
        expanded: The newer version that the schema is expanded to, if only the end of its migration is left.
    """

    adapter: str
    steps: tuple[PlannedStep, ...]
    script: str
    expanded: str | None = None


def migrate_store(settings: Settings, *, finish: bool = False) -> MigratedStore:
    """Create or update the schema of every adapter in use, including those that personas name.

    Args:
        settings: The settings that configure the adapters.
        finish: End the support of the previous release.

    Returns:
        The schema of the default adapter.

    Raises:
        ConfigurationError: No database is configured.
        StoreUnavailableError: The database cannot be reached, or its tables were locked all the time.
    """
    migrated = [_migrate(settings, name, finish=finish) for name in adapters_in_use(settings)]
    return migrated[0]


def plan_store_migration(settings: Settings, *, finish: bool = False) -> list[PlannedMigration]:
    """Return what ``migrate_store`` would do now, for each bundled adapter in use. It changes nothing.

    Raises:
        ConfigurationError: No database is configured.
        StoreUnavailableError: The database cannot be reached.
    """
    plans = []
    for name in adapters_in_use(settings):
        with open_adapter(settings, name) as adapter:
            if isinstance(adapter, SqlAdapter):
                steps, script = adapter.plan_migration(finish=finish)
                expanded = None if steps else adapter.expanded_version()
                plans.append(PlannedMigration(name, tuple(steps), script, expanded))
    return plans


def _migrate(settings: Settings, name: str, *, finish: bool) -> MigratedStore:
    with open_adapter(settings, name) as adapter:
        if not isinstance(adapter, SqlAdapter):
            adapter.migrate()
            return MigratedStore(adapter.schema_version())
        adapter.migrate(finish=finish)
        return MigratedStore(adapter.schema_version(), adapter.expanded_version())
