"""Adapters by name: the bundled ones, those registered at run time, and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeAlias

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import ConfigurationError
from kvworker.wording import did_you_mean

#: Makes an adapter from its block in the configuration file.
AdapterFactory: TypeAlias = Callable[[Mapping[str, Any]], KeyValueStoreAdapter]

#: The entry-point group by which an installed package offers adapters: a name and a factory each.
ENTRY_POINT_GROUP: Final = "kvworker.adapters"


def _bundled(module: str) -> AdapterFactory:
    def _make(config: Mapping[str, Any]) -> KeyValueStoreAdapter:
        # Imported on first use: the database libraries are heavy.
        adapter: KeyValueStoreAdapter = import_module(module).make_adapter(config)
        return adapter

    return _make


_BUNDLED = {"postgres": "kvworker.adapters.postgres", "sqlite": "kvworker.adapters.sqlite"}
#: The modules that SQLAlchemy imports when it makes an engine.
_DIALECTS = {"postgres": "sqlalchemy.dialects.postgresql.psycopg", "sqlite": "sqlalchemy.dialects.sqlite.pysqlite"}

_factories: dict[str, AdapterFactory] = {name: _bundled(module) for name, module in _BUNDLED.items()}


def register_kv_store_adapter(name: str, factory: AdapterFactory, *, replace: bool = False) -> None:
    """Make an adapter available under a name, in this process.

    Args:
        name: The name in the configuration file; the adapter's provider is ``kv_store_<name>``.
        factory: Makes the adapter from its configuration block.
        replace: Replace an adapter that already has this name.

    Raises:
        ConfigurationError: the name is blank, or it is in use and ``replace`` is false.
    """
    if not name.strip():
        raise ConfigurationError("an adapter's name must not be blank")
    if name in _factories and not replace:
        raise ConfigurationError(f"an adapter named {name!r} is registered already; pass replace=True to replace it")
    _factories[name] = factory


def available_kv_store_adapters() -> tuple[str, ...]:
    """Return the names that ``create_kv_store_adapter`` knows, sorted."""
    return tuple(sorted({*_factories, *_plugins()}))


def create_kv_store_adapter(name: str, config: Mapping[str, Any]) -> KeyValueStoreAdapter:
    """Make the named adapter from its configuration block.

    Raises:
        ConfigurationError: no adapter has this name, its package cannot be loaded, or the block is invalid.
    """
    factory = _factories.get(name) or _load_plugin(name)
    return factory(config)


def check_registered(name: str) -> None:
    """Check that an adapter has this name. Loads and opens nothing.

    Raises:
        ConfigurationError: No adapter has it.
    """
    known = available_kv_store_adapters()
    if name not in known:
        hint = f"{did_you_mean(name, known)} available: {', '.join(known)}".lstrip()
        raise ConfigurationError(f"no key-value store adapter is named {name!r}; {hint}")


def preload_kv_store_adapter(name: str) -> None:
    """Import the modules of a bundled adapter, so that processes forked from this one share them."""
    for modules in (_BUNDLED, _DIALECTS):
        if name in modules:
            import_module(modules[name])


def _plugins() -> dict[str, EntryPoint]:
    return {plugin.name: plugin for plugin in entry_points(group=ENTRY_POINT_GROUP)}


def _load_plugin(name: str) -> AdapterFactory:
    check_registered(name)
    plugin = _plugins()[name]
    try:
        factory: AdapterFactory = plugin.load()
    except Exception as error:
        raise ConfigurationError(
            f"the adapter {name!r} ({plugin.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return factory
