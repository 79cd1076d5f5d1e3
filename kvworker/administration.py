"""What an operator does to the database itself, beside the queue: migrate it, look at it, read all of it."""

from __future__ import annotations

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql_adapter import SqlAdapter
from kvworker.errors import ConfigurationError
from kvworker.settings import Settings


def open_adapter(settings: Settings) -> KeyValueStoreAdapter:
    """The configured adapter, in this process; close it after use."""
    return create_kv_store_adapter(*settings.store.adapter_config())


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
    """Create or update the schema of the configured store, and return its version; None if the adapter has none.

    Raises:
        ConfigurationError: no database is configured.
        StoreUnavailableError: the database cannot be reached.
    """
    with open_adapter(settings) as adapter:
        adapter.migrate()
        return adapter.schema_version()
