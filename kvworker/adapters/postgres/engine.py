"""The engine of a PostgreSQL database: how its connections are made and bounded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from kvworker.adapters.postgres.connection import OneCursorConnection
from kvworker.adapters.postgres.hosts import HostOrder
from kvworker.adapters.sql.schema import SCHEMA_OPTION
from kvworker.settings.adapters import PostgresSettings
from kvworker.settings.url_files import UrlFile

#: An unreachable server must become an error within seconds. A url may override each of these.
_CONNECT_DEFAULTS: Final[Mapping[str, int]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


#: The server cancels a statement after ``statement_timeout_seconds``. If no error arrives within this time after that,
#: the server is frozen or the connection is cut.
_ANSWER_SECONDS: Final = 1.0


def make_postgres_engine(url: URL, settings: PostgresSettings) -> Engine:
    """Make an engine in autocommit mode. It connects on first use."""
    pool = settings.pool
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        pool_size=pool.size,
        max_overflow=pool.max_overflow,
        pool_timeout=pool.timeout,
        pool_reset_on_return=None,
        connect_args=_connect_arguments(url, settings),
        # A migration creates this schema.
        execution_options={SCHEMA_OPTION: settings.schema},
    )

    hosts, limit_seconds = HostOrder(), answer_seconds(settings)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _entry: Any, args: list[Any], arguments: dict[str, Any]) -> OneCursorConnection:
        ordered = hosts.ordered(arguments)
        connection = _log_in(settings.url_file, args, ordered)
        host = connection.info.host, str(connection.info.port)
        hosts.record_connected(ordered, host)
        connection.on_overdue = partial(hosts.record_silent, ordered, host)
        connection.limit_seconds = limit_seconds
        return connection

    return engine


def _log_in(file: UrlFile | None, args: list[Any], arguments: Mapping[str, Any]) -> OneCursorConnection:
    """Connect with the credentials that the file holds now, or else with the last ones that the server accepted."""
    if file is None:
        return OneCursorConnection.connect(*args, **arguments)
    failure: psycopg.OperationalError | None = None
    for credentials in file.attempts():
        login = {"user": credentials.username, "password": credentials.password}
        given = {name: value for name, value in login.items() if value is not None}
        try:
            connection = OneCursorConnection.connect(*args, **{**arguments, **given})
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError as error:
            # libpq gives the reason as text alone, in the server's language.
            failure = error
        else:
            file.accept(credentials)
            return connection
    assert failure is not None  # noqa: S101 - there is at least one attempt
    raise failure


def answer_seconds(settings: PostgresSettings) -> float:
    """Return the longest wait for the server's answer to a statement."""
    return settings.statement_timeout_seconds + _ANSWER_SECONDS


def timeout_milliseconds(settings: PostgresSettings) -> int:
    """Return the limit of a statement, and of an idle transaction, in whole milliseconds."""
    return max(1, round(settings.statement_timeout_seconds * 1000))


def _connect_arguments(url: URL, settings: PostgresSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: value for name, value in _CONNECT_DEFAULTS.items() if name not in url.query}
    # A role, a database or PGCLIENTENCODING may name one that cannot hold every value. PgBouncer passes it on.
    arguments["client_encoding"] = "utf8"
    arguments["prepare_threshold"] = settings.prepare_threshold
    if settings.prepare_threshold is not None:
        # Behind PgBouncer (prepare_threshold: null) the session's settings are not ours to change. The plans of our
        # statements do not depend on their parameters, and planning takes longer than running them.
        arguments["options"] = " ".join(
            [
                # A role's limit must not refuse writes that take turns.
                "-c lock_timeout=0",
                *url.normalized_query.get("options", (os.environ.get("PGOPTIONS", ""),)),
                f"-c statement_timeout={timeout_milliseconds(settings)}",
                "-c plan_cache_mode=force_generic_plan",
                "-c default_transaction_isolation=read\\ committed",
                *([f"-c search_path={settings.schema}"] if settings.schema else []),
            ]
        )
    return arguments
