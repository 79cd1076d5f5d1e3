"""Translates PostgreSQL's errors. No message, and no driver's error kept as a cause, holds a value or a password."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import psycopg
from sqlalchemy.engine import URL

from kvworker.adapters.postgres.connection import OverdueError
from kvworker.adapters.sql.schema import QUOTA_OF_CHECK
from kvworker.adapters.sql.signals import (
    ConflictError,
    ConnectionLostError,
    DuplicateOperationError,
    NamespaceMissingError,
    NotAnIntegerError,
    OutOfRangeError,
    QuotaRefusedError,
)
from kvworker.adapters.sql.write import Write
from kvworker.errors import ConfigurationError, KVStoreError, SchemaError, StoreUnavailableError
from kvworker.settings.url_files import UrlFile

_SCHEMA_MISSING: Final = (
    "the store's tables are missing or of another version, or this user may not use their schema;"
    " run `kvworker migrate`"
)

_NO_SCHEMA: Final = (
    "no schema that search_path names exists: create it (CREATE SCHEMA), or correct search_path where the url, the"
    " role, the database or PGOPTIONS sets it"
)

_SCHEMA_INCOMPLETE: Final = (
    "some of the store's tables exist, but the record of their version is missing: restore the table kv_schema_version"
    " from a backup, or use an empty schema"
)

#: Reasons why a login fails that a retry does not change, and what to do about each. libpq gives them no code, so a
#: failure with a message in another language than English is not recognized, and is retried.
_LOGIN_FAILURES: Final[Mapping[str, str]] = {
    "password authentication failed": "correct the user or the password in the url",
    "no password supplied": "give the password in the url, or in the file that PGPASSFILE names",
    "no pg_hba.conf entry": "admit this user from this host in the server's pg_hba.conf, with or without TLS",
    "certificate verify failed": "correct sslrootcert in the url, or the server's certificate",
    "server certificate for": "use the host name in the server's certificate",
    "root certificate file": "correct sslrootcert in the url",
    "server does not support SSL": "enable TLS on the server, or remove sslmode from the url",
}

#: libpq's and psycopg's message for a parameter with an impossible value.
_BAD_PARAMETER: Final = re.compile(
    r"invalid \w+ value: |bad value for \w+: |invalid integer value .* for connection option"
)

#: PgBouncer's refusal, which ends with the parameter.
_UNSUPPORTED_PARAMETER: Final = "unsupported startup parameter"

_LOST: Final = "the connection to the database was lost"
_SILENT: Final = (
    "the database did not answer within statement_timeout_seconds and a second; it is frozen, or the network is cut"
)

#: By SQLSTATE, what only the statement of a plain increment can mean.
_INCREMENT_SIGNALS: Final[Mapping[str, type[Exception]]] = {"22P02": NotAnIntegerError, "22003": OutOfRangeError}
#: These codes have a meaning only in a statement that records an operation and charges its ledger. It divides by the
#: number of rows that it charged.
_WRITE_SIGNALS: Final[Mapping[str, type[Exception]]] = {
    "22012": NamespaceMissingError,
    "23505": DuplicateOperationError,
}

#: By SQLSTATE, what every statement can mean.
_MEANINGS: Final[Mapping[str, Callable[[], Exception]]] = {
    "25P04": lambda: ConnectionLostError("the transaction took longer than the database's transaction_timeout"),
    "25P03": lambda: ConnectionLostError("the transaction was idle for longer than statement_timeout_seconds"),
    "25006": lambda: ConnectionLostError("the database is read-only"),
    "3F000": lambda: ConfigurationError(_NO_SCHEMA),
    "40001": lambda: ConflictError("the database repeatedly failed to serialize the operation with others"),
    "40P01": lambda: ConflictError("the operation repeatedly ran into a deadlock"),
    "42703": lambda: SchemaError(_SCHEMA_MISSING),
    "42P01": lambda: SchemaError(_SCHEMA_MISSING),
    "42P07": lambda: SchemaError(_SCHEMA_INCOMPLETE),
    "53100": lambda: StoreUnavailableError("the database's disk is full"),
    "53200": lambda: StoreUnavailableError("the database is out of memory"),
    "53300": lambda: StoreUnavailableError("the database has too many connections"),
    "55P03": lambda: StoreUnavailableError("a lock was not granted in time"),
    "57014": lambda: StoreUnavailableError("the statement took longer than statement_timeout_seconds"),
    "57P01": lambda: ConnectionLostError("the database closed the connection: it is shutting down"),
    "57P02": lambda: ConnectionLostError("the database closed the connection: it crashed"),
    "57P03": lambda: StoreUnavailableError("the database is starting up or shutting down"),
    "57P05": lambda: ConnectionLostError("the database closed the connection: it was idle for too long"),
}


def translate(error: Exception) -> Exception:
    """Translate an error of psycopg to an error for the caller, or to a signal that every statement can mean."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.errors.CheckViolation):
        return _translate_check(error)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        # The server's message names only the table or the schema.
        return missing_privilege(error.diag.message_primary)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and state is None:
        return _lost(error)
    if state is not None and state in _MEANINGS:
        return _MEANINGS[state]()
    if state is not None and state.startswith("08"):
        return ConnectionLostError(_LOST)
    return KVStoreError(f"the database failed with SQLSTATE {state}")


def write_signal(error: psycopg.Error, write: Write) -> Exception | None:
    """Return the signal that an error of psycopg means in the statements of a write, or None if it has no such meaning.

    Elsewhere the same SQLSTATE is a fault of the database or of a trigger in it.
    """
    state = error.sqlstate or ""
    if write.action == "increment" and write.is_plain and not write.purged and state in _INCREMENT_SIGNALS:
        return _INCREMENT_SIGNALS[state]()
    return _WRITE_SIGNALS[state]() if state in _WRITE_SIGNALS else None


def quotes_data(error: Exception) -> bool:
    """Return whether the server's message may quote a value or a row."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state.startswith(("22", "23"))


def cannot_connect(error: Exception, url: URL | None, url_file: UrlFile | None) -> Exception:
    """Translate a failure to connect. The error quotes the driver's reason on one line, without a password."""
    reason = " ".join(str(error).split())
    for password in (url and url.password, url_file and url_file.credentials().password):
        if password:
            reason = reason.replace(password, "***")
    for failure, advice in _LOGIN_FAILURES.items():
        if failure in reason:
            return ConfigurationError(f"cannot log in to the database; {advice}: {reason}")
    if _UNSUPPORTED_PARAMETER in reason:
        return ConfigurationError(
            "cannot connect to the database; behind PgBouncer set prepare_threshold: null, remove options from the url"
            f" and PGOPTIONS, and make such settings on the server: {reason}"
        )
    if _BAD_PARAMETER.search(reason):
        return ConfigurationError(f"cannot connect to the database; correct this parameter in the url: {reason}")
    return StoreUnavailableError(f"cannot connect to the database: {reason}")


def _lost(error: Exception) -> Exception:
    return ConnectionLostError(_SILENT if isinstance(error, OverdueError) else _LOST)


def missing_privilege(reason: str | None) -> ConfigurationError:
    """Return the error for a user without a right, which ``reason`` names."""
    return ConfigurationError(
        f"the database user may not do this ({reason}): a worker needs the rights that"
        " config/grants.sql grants, and `kvworker migrate` must run as the owner of the tables"
    )


def _translate_check(error: psycopg.Error) -> Exception:
    # Citus passes on only the message, which names the constraint in every language.
    named = error.diag.constraint_name or error.diag.message_primary or ""
    for constraint, quota in QUOTA_OF_CHECK.items():
        if constraint in named:
            return QuotaRefusedError(quota)
    return KVStoreError(
        f"the database refused the write by a constraint that is not the store's: {error.diag.constraint_name!r}"
    )
