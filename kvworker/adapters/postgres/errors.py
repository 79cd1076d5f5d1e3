"""What PostgreSQL's errors mean. No message holds a value or a password, and no driver's error that stays the cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import psycopg

from kvworker.adapters.sql.dialect import (
    ConflictError,
    ConnectionLostError,
    DuplicateOperationError,
    NotAnIntegerError,
    OutOfRangeError,
    QuotaRefusedError,
)
from kvworker.adapters.sql.schema import GLOBAL_QUOTA_CHECK, NAMESPACE_QUOTA_CHECK
from kvworker.errors import ConfigurationError, KVStoreError, SchemaError, StoreUnavailableError

_SCHEMA_MISSING = (
    "the store's tables are missing or of another version, or this user may not use their schema;"
    " run `kvworker migrate`"
)

_SCHEMA_HALF = (
    "some of the store's tables are there, but not the note of their version: restore the table kv_schema_version"
    " from a backup, or use an empty schema"
)

#: Reasons not to be let in that trying again does not change, and what to do. The library gives them no code, so of a
#: server that speaks another language than English some are not known, and tried again.
_REFUSALS: Mapping[str, str] = {
    "password authentication failed": "correct the user or the password in the url",
    "no password supplied": "give the password in the url, or in the file that PGPASSFILE names",
    "no pg_hba.conf entry": "have the server's pg_hba.conf admit this user from here, with or without TLS",
    "certificate verify failed": "correct sslrootcert in the url, or the server's certificate",
    "server certificate for": "use the host name that the server's certificate is for",
    "root certificate file": "correct sslrootcert in the url",
    "server does not support SSL": "switch TLS on in the server, or take sslmode out of the url",
}

_LOST = "the connection to the database was lost"

_MEANINGS: Mapping[str, Callable[[], Exception]] = {
    "22P02": NotAnIntegerError,
    "22003": OutOfRangeError,
    "25P03": lambda: ConnectionLostError("the transaction stood idle for longer than statement_timeout_seconds"),
    "23505": DuplicateOperationError,
    "25006": lambda: ConnectionLostError("the database is read-only"),
    "3F000": lambda: SchemaError(_SCHEMA_MISSING),
    "40001": lambda: ConflictError("the database could not serialize the operation with others, again and again"),
    "40P01": lambda: ConflictError("the operation was caught in a deadlock, again and again"),
    "42703": lambda: SchemaError(_SCHEMA_MISSING),
    "42P01": lambda: SchemaError(_SCHEMA_MISSING),
    "42P07": lambda: SchemaError(_SCHEMA_HALF),
    "53100": lambda: StoreUnavailableError("the database's disk is full"),
    "53200": lambda: StoreUnavailableError("the database is out of memory"),
    "53300": lambda: StoreUnavailableError("the database has too many connections"),
    "55P03": lambda: StoreUnavailableError("a lock was not given in time"),
    "57014": lambda: StoreUnavailableError("the statement took longer than statement_timeout_seconds"),
    "57P01": lambda: ConnectionLostError("the database closed the connection: it is shutting down"),
    "57P02": lambda: ConnectionLostError("the database closed the connection: it crashed"),
    "57P03": lambda: StoreUnavailableError("the database is starting up or shutting down"),
    "57P05": lambda: ConnectionLostError("the database closed the connection: it was idle for too long"),
}


def translate(error: Exception) -> Exception:
    """Give the error, or the signal, that the driver's error means."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.errors.CheckViolation):
        return _refusal(error)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return _missing_right(error)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and state is None:
        return ConnectionLostError(_LOST)
    if state is not None and state in _MEANINGS:
        return _MEANINGS[state]()
    if state is not None and state.startswith("08"):
        return ConnectionLostError(_LOST)
    return KVStoreError(f"the database failed with SQLSTATE {state}")


def quotes_data(error: Exception) -> bool:
    """Whether the server's words are about a value or a row, which they then quote."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state.startswith(("22", "23"))


def cannot_connect(error: Exception, password: str | None) -> Exception:
    """Give the error that a failure to connect means, with the driver's reason on one line."""
    reason = " ".join(str(error).split())
    if password:
        reason = reason.replace(password, "***")
    for refusal, advice in _REFUSALS.items():
        if refusal in reason:
            return ConfigurationError(f"the database lets nobody in like this; {advice}: {reason}")
    return StoreUnavailableError(f"cannot connect to the database: {reason}")


def _missing_right(error: psycopg.Error) -> Exception:
    # What the server says names the table or the schema, and nothing else.
    return ConfigurationError(
        f"the database user may not do this ({error.diag.message_primary}): a worker's needs what config/grants.sql"
        " gives, and `kvworker migrate` needs the owner of the tables"
    )


def _refusal(error: psycopg.Error) -> Exception:
    constraint = error.diag.constraint_name
    if constraint in {NAMESPACE_QUOTA_CHECK, GLOBAL_QUOTA_CHECK}:
        return QuotaRefusedError(is_global=constraint == GLOBAL_QUOTA_CHECK)
    return KVStoreError(f"the database refused the write by its constraint {constraint!r}")
