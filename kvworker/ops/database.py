"""What an operator does to the database itself, beside the queue: migrate it, look at it, read all of it."""

from __future__ import annotations

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.errors import ConfigurationError
from kvworker.settings import Settings


def open_adapter(settings: Settings, name: str | None = None) -> KeyValueStoreAdapter:
    """The named adapter, by default the default one, in this process; close it after use."""
    return create_kv_store_adapter(*settings.store.adapter_config(name))


def open_sql_adapter(settings: Settings) -> SqlAdapter:
    """The configured adapter, for what only the bundled ones can do.

    Raises:
        ConfigurationError: it is another one.
    """
    adapter = open_adapter(settings)
    if isinstance(adapter, SqlAdapter):
        return adapter
    adapter.close()
    raise ConfigurationError(
        f"the adapter {settings.store.default_adapter!r} cannot do this; only postgres and sqlite can"
    )


def migrate_store(settings: Settings) -> str | None:
    """Create or update the schema of every adapter in use, those that personas name included.

    Returns the version of the default adapter's, or None if it has none.

    Raises:
        ConfigurationError: no database is configured.
        StoreUnavailableError: the database cannot be reached.
    """
    versions = []
    for name in adapters_in_use(settings):
        with open_adapter(settings, name) as adapter:
            adapter.migrate()
            versions.append(adapter.schema_version())
    return versions[0]
