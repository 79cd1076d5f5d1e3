"""The interface that the shared core uses a database through: one subclass for each SQL dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from sqlalchemy import Engine

from kvworker.adapters.sql.record_ids import record_id
from kvworker.adapters.sql.statements import StatementName, load_statements
from kvworker.adapters.sql.write import Limits, Record, Write, whole_result
from kvworker.model import DatabaseConnections, GetResult


class Cursor(Protocol):
    """The part of a driver's cursor that the core uses."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""


class DriverConnection(Protocol):
    """The part of a driver's connection that the core uses; both drivers have it."""

    def execute(self, query: str, params: Mapping[str, Any], /) -> Cursor:
        """Run a statement."""


class Ledger(NamedTuple):
    """A locked ledger: what it counts, the namespace's own quota, and how many times the configured limits it has."""

    used_bytes: int
    entry_count: int
    record_count: int
    quota_bytes: int | None = None
    limit_factor: int = 1


class Dialect(ABC):
    """A database: how to connect to it, run the named statements on it, and interpret its errors.

    Connections are the driver's own, in autocommit mode.
    """

    #: SQLAlchemy's name of the dialect.
    name: ClassVar[str]
    #: The package whose ``sql`` folder holds the statements.
    package: ClassVar[str]
    #: SQLAlchemy's name of the driver.
    driver: ClassVar[str]
    #: The base classes of the driver's exceptions.
    driver_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self) -> None:
        self.statements = load_statements(self.package)

    def use_schema(self, version: str) -> None:
        """Use the statements for a version of the schema."""
        self.statements = load_statements(self.package, version)

    @abstractmethod
    def make_engine(self) -> Engine:
        """Make an engine as configured. It connects on first use."""

    def needs_fork_gate(self) -> bool:
        """Return whether a process must close its connections before it forks, even if the child never uses them."""
        return False

    @abstractmethod
    def check_usable(self, connection: Any) -> None:
        """Check that the database takes writes of this user. The schema has been checked.

        Raises:
            ConfigurationError: the user lacks a right.
            StoreUnavailableError: the database takes no writes at the moment.
        """

    @abstractmethod
    def is_idle(self, connection: Any) -> bool:
        """Return whether the driver's connection is open and outside of a transaction."""

    def files_open_to_others(self) -> list[Path]:
        """Return the files of the database that any user of this machine can read or write."""
        return []

    def bounded(self, _connection: Any) -> AbstractContextManager[object]:
        """Bound every wait for the server on a host program's connection; our own connections are made so."""
        return nullcontext()

    @abstractmethod
    def check_encoding(self, connection: Any) -> None:
        """Refuse a database or a connection whose encoding cannot hold every value or orders keys in another way.

        Raises:
            ConfigurationError: the error says what to do.
        """

    @abstractmethod
    def translate(self, error: Exception) -> Exception:
        """Translate an error of the driver to a signal or to an error for the caller."""

    def cause_of(self, error: Exception) -> Exception | None:
        """Return the driver's error as the cause to show in tracebacks, or None if its text may quote stored data."""
        return error

    @abstractmethod
    def cannot_connect(self, error: Exception) -> Exception:
        """Translate a failure to connect to an error for the caller."""

    @abstractmethod
    def transaction(self, connection: Any) -> AbstractContextManager[object]:
        """Run the statements of a ``with`` block as one transaction; an exception rolls it back."""

    @contextmanager
    def snapshot(self, connection: Any) -> Iterator[None]:
        """Let all statements of a ``with`` block read the same moment; none may change anything."""
        self.run(connection, "begin_snapshot", {})
        try:
            yield
        finally:
            # If the connection broke, that is the error to raise, not the failure to end the transaction.
            with suppress(*self.driver_errors):
                connection.rollback()

    def inspection(self, _connection: Any) -> AbstractContextManager[object]:
        """Let the statements of a ``with`` block give up on a locked table soon, as ``StoreUnavailableError``."""
        return nullcontext()

    @abstractmethod
    def write(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        """Apply a write in one transaction, or return its record if it was applied before.

        Raises:
            DuplicateOperationError, NotAnIntegerError, OutOfRangeError, QuotaRefusedError: see ``signals``.
            StepRefusedError: a step was refused, and the write with it.
        """

    @abstractmethod
    def apply_many(self, connection: Any, writes: Sequence[Write], limits: Limits) -> list[Record | GetResult | None]:
        """Apply unrelated writes and reads in one transaction; None marks each that must run individually."""

    @abstractmethod
    def read_entries(self, connection: DriverConnection, namespace: str, keys: list[str]) -> tuple[list[Any], float]:
        """Read live entries as rows (key, text, expiry, size, version), and the database's clock.

        Both instants are seconds since 1970, the size is in bytes.
        """

    @abstractmethod
    def delete_expired(
        self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Run one batch of a sweep or a purge in its own transaction; return the deleted rows and bytes."""

    def prune_records(
        self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]
    ) -> tuple[int, int, float | None]:
        """Run one batch of a prune.

        Returns:
            The deleted rows, the rows that the batch found, and the place in the index at which the next batch may
            begin.
        """
        deleted_rows, found_rows, until = self.fetch_one(connection, statement, params)
        return deleted_rows, found_rows, until

    def connections(self, _connection: DriverConnection) -> DatabaseConnections | None:
        """Count the connections to the database; None if it is not a server."""
        return None

    def run(self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]) -> Cursor:
        """Run a named statement."""
        return connection.execute(self.statements[statement], params)

    def fetch_one(self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]) -> Any:
        """Run a named statement and return its first row, or None."""
        return self.run(connection, statement, params).fetchone()

    def lock_ledger(self, connection: Any, namespace: str) -> Ledger | None:
        """Lock a ledger as a single row and return it, or None if it is missing."""
        row = self.fetch_one(connection, "lock_ledger", {"namespace": namespace})
        return Ledger(*row) if row else None

    def record_refusal(self, connection: Any, params: Mapping[str, Any]) -> bool:
        """Add refusals to an operation's record; return False if it was applied, or its namespace has no ledger."""
        return self.fetch_one(connection, "record_refusal", params) is not None

    def withdraw_refusals(self, connection: Any, params: Mapping[str, Any]) -> str:
        """Remove an operation's refusals and return them."""
        row = self.fetch_one(connection, "withdraw_refusals", params)
        return row[0] or ""

    def found_namespace(self, connection: Any, params: Mapping[str, Any]) -> None:
        """Create a namespace's ledger and count the namespace, unless it exists.

        Raises:
            QuotaRefusedError: there are as many namespaces as there may be.
        """
        self.run(connection, "found_namespace", params)

    def remove_empty_ledgers(self, connection: Any) -> None:
        """Remove the ledgers of namespaces that hold nothing, and count these no longer."""
        self.run(connection, "remove_empty_ledgers", {})

    def find_record(self, connection: DriverConnection, namespace: str, operation_id: str) -> Record | None:
        """Return the record of an operation id, or None."""
        return found_record(self.run(connection, "find_records", record_names(namespace, operation_id)).fetchall())


def record_names(namespace: str, operation_id: str) -> dict[str, Any]:
    """Return the parameters of the statement that finds the record of an operation id."""
    return {"namespace": namespace, "operation_id": operation_id, "id": record_id(operation_id)}


def found_record(rows: Sequence[Sequence[Any]]) -> Record | None:
    """Return the record that this statement found, or None."""
    if not rows:
        return None
    # There are two only if both hold refusals.
    result = "".join(whole_result(*row[1:3]) for row in reversed(rows))
    return Record(rows[0][0], result, rows[0][3], replayed=True)
