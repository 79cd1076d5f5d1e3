"""The ``tools.kv_store`` block: which adapter is used, and what each is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator

from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import PostgresSettings, SqlAdapterSettings, SqliteSettings
from kvworker.settings.blocks import Block
from kvworker.settings.environment import REUSE_VARIABLE, URL_VARIABLE
from kvworker.settings.urls import DATABASE_URL_EXAMPLES, database_url_problem

ADAPTERS_PATH = "tools.kv_store.adapters"
BUNDLED_ADAPTERS: dict[str, type[SqlAdapterSettings]] = {"postgres": PostgresSettings, "sqlite": SqliteSettings}


class KvStoreSettings(Block):
    """The block as it was given: the bundled adapters' settings, and other adapters' blocks unread."""

    default_adapter: str = Field(default="postgres", min_length=1)
    postgres: PostgresSettings = PostgresSettings()
    sqlite: SqliteSettings = SqliteSettings()
    others: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _check_adapters(self) -> Self:
        problems = [*adapter_problems("postgres", self.postgres), *adapter_problems("sqlite", self.sqlite)]
        if problems:
            raise ConfigurationError("\n".join(problems))
        return self


@dataclass(frozen=True, repr=False)
class Store:
    """The adapters of a configuration, each with what it needs from the other blocks."""

    block: KvStoreSettings
    conversation_store_url: SecretStr | None
    operation_retention_seconds: int

    @property
    def default_adapter(self) -> str:
        """The name of the adapter that a worker uses."""
        return self.block.default_adapter

    @property
    def adapters(self) -> Mapping[str, SqlAdapterSettings | Mapping[str, Any]]:
        """Every configured adapter by name: the bundled ones' settings, other ones' blocks as given."""
        return {"postgres": self.block.postgres, "sqlite": self.block.sqlite, **self.block.others}

    def adapter_config(self, name: str | None = None) -> tuple[str, dict[str, Any]]:
        """The name of an adapter (by default the default one) and the mapping to make it from.

        A bundled adapter's ``url`` is None if its block says ``reuse_conversation_store: true`` and there is
        no ``conversation_store.url``: the host program then hands over its engine. An adapter that is not
        bundled gets its block as it was given.

        Raises:
            ConfigurationError: no database is configured for it, or one of another kind.

        """
        name = name or self.default_adapter
        settings = self.adapters.get(name, {})
        if not isinstance(settings, SqlAdapterSettings):
            return name, deepcopy(dict(settings))
        reuse = settings.reuse_conversation_store
        if reuse is None:
            reuse = settings.url is None and self.conversation_store_url is not None
        config = settings.model_dump()
        config["url"] = self._conversation_url(name) if reuse else _own_url(name, settings)
        config["reuse_conversation_store"] = reuse
        config["operation_retention_seconds"] = self.operation_retention_seconds
        return name, config

    def __repr__(self) -> str:
        return f"Store(default_adapter={self.default_adapter!r}, adapters={sorted(self.adapters)!r})"

    def _conversation_url(self, name: str) -> str | None:
        if self.conversation_store_url is None:
            return None
        url = self.conversation_store_url.get_secret_value()
        if problem := database_url_problem(name, url):
            raise ConfigurationError(
                f"conversation_store.url: the {name} adapter would reuse it, so {problem};"
                f" or set {ADAPTERS_PATH}.{name}.url to a database of the store's own"
            )
        return url


def adapter_problems(name: str, settings: SqlAdapterSettings) -> Iterator[str]:
    """What is wrong with a bundled adapter's database, one line each."""
    if settings.url is None:
        return
    path = f"{ADAPTERS_PATH}.{name}"
    if settings.reuse_conversation_store:
        yield (
            f"{path}.reuse_conversation_store: true contradicts {path}.url, which names another database;"
            " set it to false or remove the url"
        )
    if problem := database_url_problem(name, settings.url.get_secret_value()):
        yield f"{path}.url: {problem}"


def _own_url(name: str, settings: SqlAdapterSettings) -> str:
    if settings.url is not None:
        return settings.url.get_secret_value()
    path = f"{ADAPTERS_PATH}.{name}"
    or_url, or_reuse = (f" or {URL_VARIABLE}", f" or {REUSE_VARIABLE}") if name == "postgres" else ("", "")
    raise ConfigurationError(
        f"{path}.url: no database is configured; set it{or_url} to a URL like {DATABASE_URL_EXAMPLES[name]},"
        f" or set {path}.reuse_conversation_store{or_reuse} to true to share the conversation store's"
        " (its url, or the engine that the host program hands over)"
    )
