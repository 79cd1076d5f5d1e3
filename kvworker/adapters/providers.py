"""Providers: the named adapters of the tool manifest. The default one, and those that personas name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvworker.adapters import KeyValueStoreAdapter, available_kv_store_adapters, create_kv_store_adapter
from kvworker.adapters.registry import check_registered
from kvworker.errors import ConfigurationError
from kvworker.model import PoolUse
from kvworker.settings.store import PROVIDER_PREFIX
from kvworker.wording import did_you_mean

if TYPE_CHECKING:
    from kvworker.settings import Settings


class Adapters:
    """The adapters of a process, each made on first use. Thread-safe.

    It is safe to use after a fork if no adapter was made before the fork.
    """

    def __init__(self, settings: Settings, default: KeyValueStoreAdapter | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._made = {settings.store.default_adapter: default} if default else {}

    def of(self, provider: str | None = None) -> KeyValueStoreAdapter:
        """Return the adapter of a provider; without a provider, the configured default.

        Raises:
            ConfigurationError: the provider is unknown, or its adapter is not configured.
        """
        with self._lock:
            name = self._name_of(provider) if provider else self._settings.store.default_adapter
            if name not in self._made:
                self._made[name] = create_kv_store_adapter(*self._settings.store.adapter_config(name))
            return self._made[name]

    def pool_use(self) -> dict[str, PoolUse]:
        """Count this process's connections, by the names of the adapters that have some and can tell."""
        uses = {name: adapter.pool_use() for name, adapter in self._made.copy().items()}
        return {name: use for name, use in uses.items() if use is not None}

    def close(self) -> None:
        """Release the connections of all adapters."""
        with self._lock:
            for adapter in self._made.values():
                adapter.close()

    def _name_of(self, provider: str) -> str:
        # Looking names up reads the metadata of every installed package.
        if provider not in self._names:
            self._names[provider] = adapter_of(provider)
        return self._names[provider]


def adapters_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the names of the adapters that hold entries: the default one first, then those that personas name.

    An unknown provider is left out: nothing can be stored there.
    """
    default = settings.store.default_adapter
    named = {_find_adapter(persona.provider) for persona in settings.policies.personas.values() if persona.provider}
    return (default, *sorted(name for name in named if name and name != default))


def unknown_names(settings: Settings) -> Iterator[str]:
    """Yield a line for each adapter and provider that the settings name and that is not registered in this process.

    Each line starts with the path of the setting. Nothing is opened.
    """
    personas = settings.policies.personas.items()
    providers = {f"policies.personas.{name}.provider": persona.provider for name, persona in personas}
    try:
        check_registered(settings.store.default_adapter)
    except ConfigurationError as error:
        yield f"tools.kv_store.default_adapter: {error}"
    for path, provider in providers.items():
        try:
            if provider:
                adapter_of(provider)
        except ConfigurationError as error:
            yield f"{path}: {error}"


def adapter_of(provider: str) -> str:
    """Return the name of a provider's adapter.

    Args:
        provider: ``kv_store_<adapter>``, or the adapter's own name.

    Raises:
        ConfigurationError: the provider is unknown.
    """
    name = _find_adapter(provider)
    if name is None:
        adapters = available_kv_store_adapters()
        known = ", ".join(PROVIDER_PREFIX + adapter for adapter in adapters)
        hint = f"{did_you_mean(provider.removeprefix(PROVIDER_PREFIX), adapters)} available: {known}".lstrip()
        raise ConfigurationError(f"no provider is named {provider!r}; {hint}")
    return name


def _find_adapter(provider: str) -> str | None:
    available = available_kv_store_adapters()
    return next((name for name in (provider, provider.removeprefix(PROVIDER_PREFIX)) if name in available), None)
