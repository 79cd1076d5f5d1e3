"""The ``tools.kv_store`` block: the adapters, and which of them workers use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import PostgresSettings, SqlAdapterSettings, SqliteSettings
from kvworker.settings.base import Block, is_blank
from kvworker.settings.environment import CONVERSATION_URL, FALLBACKS, REUSE_VARIABLE, URL_VARIABLE
from kvworker.settings.problems import refuse
from kvworker.settings.url_files import UrlFile
from kvworker.settings.urls import DATABASE_URL_EXAMPLES, database_url_problem

#: A provider's name is this prefix and the adapter's name.
PROVIDER_PREFIX: Final = "kv_store_"
ADAPTERS_PATH = "tools.kv_store.adapters"

_BUNDLED = ("postgres", "sqlite")

_AsGiven = Annotated[dict[str, Any], BeforeValidator(lambda block: {} if is_blank(block) else block)]
_S = TypeVar("_S", bound=SqlAdapterSettings)


class AdaptersSettings(Block):
    """One block for each adapter, by name. An adapter that is not bundled gets its block unchanged."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _AsGiven] = Field(init=False)

    postgres: PostgresSettings = Field(default=PostgresSettings(), description="The bundled PostgreSQL adapter.")
    sqlite: SqliteSettings = Field(default=SqliteSettings(), description="The bundled SQLite adapter.")

    @model_validator(mode="before")
    @classmethod
    def _omit_blank(cls, data: object) -> object:
        # A blank block counts: it names an adapter.
        return {} if is_blank(data) else data

    @field_validator(*_BUNDLED)
    @classmethod
    def _check_database(cls, settings: _S, info: ValidationInfo) -> _S:
        refuse(_database_problems(str(info.field_name), settings))
        return settings

    @property
    def others(self) -> dict[str, dict[str, Any]]:
        """The blocks of adapters that are not bundled, by name."""
        return self.__pydantic_extra__

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from ((name, getattr(self, name)) for name in _BUNDLED)
        yield "others", sorted(self.others)


class KvStoreSettings(Block):
    """The key-value store: its adapters, and the one that workers use."""

    default_adapter: str = Field(
        default="postgres",
        min_length=1,
        description="The adapter that workers use: postgres, sqlite or a registered one.",
    )
    adapters: AdaptersSettings = Field(default=AdaptersSettings(), description="One block for each adapter, by name.")


class ToolsSettings(Block):
    """The tools of the host program. All but ``kv_store`` are ignored."""

    model_config = ConfigDict(extra="ignore")

    kv_store: KvStoreSettings = Field(
        default=KvStoreSettings(), description="The key-value store: its adapters, and the one that workers use."
    )


@dataclass(frozen=True, repr=False)
class Store:
    """The adapters of a configuration, with the settings that they need from other blocks."""

    block: KvStoreSettings
    conversation_store_url: SecretStr | None
    operation_retention_seconds: int
    generated_id_retention_seconds: int
    url_files: Mapping[tuple[str, ...], UrlFile]

    @property
    def default_adapter(self) -> str:
        """The name of the adapter that a worker uses."""
        return self.block.default_adapter

    @property
    def adapters(self) -> Mapping[str, SqlAdapterSettings | Mapping[str, Any]]:
        """The settings of the bundled adapters and the unchanged blocks of others, by name."""
        adapters = self.block.adapters
        return {"postgres": adapters.postgres, "sqlite": adapters.sqlite, **adapters.others}

    def adapter_config(self, name: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return the name of an adapter and the mapping from which it is created.

        Args:
            name: The adapter; by default the default adapter.

        Returns:
            A bundled adapter's ``url`` is None if it reuses the conversation store and there is no
            ``conversation_store.url``: the host program then hands over its engine. An adapter that is not bundled
            gets its block unchanged.

        Raises:
            ConfigurationError: The adapter has no database, or one of another kind.
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
        if isinstance(settings, PostgresSettings):
            path = CONVERSATION_URL if reuse else FALLBACKS[URL_VARIABLE]
            config["url_file"] = self.url_files.get(path)
        config["reuse_conversation_store"] = reuse
        config["operation_retention_seconds"] = self.operation_retention_seconds
        config["generated_id_retention_seconds"] = self.generated_id_retention_seconds
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


def _database_problems(name: str, settings: SqlAdapterSettings) -> Iterator[str]:
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
    or_url, or_reuse = (f" (or {URL_VARIABLE})", f" (or {REUSE_VARIABLE})") if name == "postgres" else ("", "")
    raise ConfigurationError(
        f"{path}.url: no database is configured; set this key{or_url} to a URL like {DATABASE_URL_EXAMPLES[name]},"
        f" or set {path}.reuse_conversation_store{or_reuse} to true to use the conversation store's"
        " database (from its url, or the engine that the host program hands over)"
    )
