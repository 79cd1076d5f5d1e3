"""Turns an adapter's configuration block into its settings, its url and its engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kvworker.adapters.conversation import conversation_engine
from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.engines import HostEngine, ProcessEngine
from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import SqlAdapterSettings
from kvworker.settings.problems import configuration_error

_Settings = TypeVar("_Settings", bound=SqlAdapterSettings)


def path_of(adapter: str) -> str:
    """Return the path of an adapter's block in the configuration file."""
    return f"tools.kv_store.adapters.{adapter}"


def parse_block(adapter: str, model: type[_Settings], config: Mapping[str, Any]) -> _Settings:
    """Validate the block.

    Raises:
        ConfigurationError: it is invalid; the error lists every problem.
    """
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        raise configuration_error(path_of(adapter), error, model) from None


def adapter_url(adapter: str, settings: SqlAdapterSettings, schemes: Sequence[str]) -> URL | None:
    """Parse the block's url. None means that the adapter uses the conversation store's engine.

    Raises:
        ConfigurationError: the url is missing, malformed or for another database.
    """
    path = f"{path_of(adapter)}.url"
    if settings.url is None:
        if settings.reuse_conversation_store is False:
            raise ConfigurationError(f"{path}: missing; set it, or reuse_conversation_store: true")
        return None
    text = settings.url.get_secret_value().strip()
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The parser's message repeats the url, and the url may hold a password.
        raise ConfigurationError(
            f"{path}: not a database url; write {schemes[-1]}://user:password@host:port/database"
        ) from None
    if "@" in (url.host or "") or (url.host and text.partition("?")[0].count("@") > 1):
        # The parser took the rest of a password for host or database, which the driver's errors would show.
        raise ConfigurationError(f"{path}: in a user name or password, write : / ? # @ percent-encoded")
    if url.drivername not in schemes:
        raise ConfigurationError(f"{path}: the scheme {url.drivername!r} is not one of {', '.join(schemes)}")
    return url


def engine_for(adapter: str, dialect: Dialect, *, has_url: bool) -> ProcessEngine:
    """Return an engine made from the url, or without a url the host program's engine."""

    def own_engine() -> Engine:
        """Make the engine from the url."""
        try:
            return dialect.make_engine()
        except (ArgumentError, TypeError, ValueError):
            # The error is not quoted: the url may hold a password.
            raise ConfigurationError(
                f"{path_of(adapter)}.url: a parameter after the question mark has an invalid value"
            ) from None

    if has_url:
        return ProcessEngine(own_engine, dialect)

    def host_engine() -> Engine:
        """Return the host program's engine, which must use this dialect and its driver."""
        engine = conversation_engine()
        if engine is None:
            raise ConfigurationError(
                f"{path_of(adapter)}: it reuses the conversation store, but there is none; set"
                " conversation_store.url, hand its engine to use_conversation_engine(), or set a url here"
            )
        if (engine.dialect.name, engine.dialect.driver) != (dialect.name, dialect.driver):
            raise ConfigurationError(
                f"{path_of(adapter)}: the conversation store's engine is {engine.dialect.name}+{engine.dialect.driver},"
                f" and this adapter needs {dialect.name}+{dialect.driver}"
            )
        return engine

    return HostEngine(host_engine, dialect)
