"""What differs between databases: the interface that the SQL adapter works through, and its signals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from sqlalchemy import Engine

from kvworker.adapters.sql.statements import load_statements
from kvworker.model import GetResult, Step


class Cursor(Protocol):
    """The part of a driver's cursor that is used here."""

    def fetchone(self) -> Any:
        """Give the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Give the rows that are left."""


class DriverConnection(Protocol):
    """The part of a driver's connection that is used here; both drivers have it."""

    def execute(self, query: str, params: Mapping[str, Any], /) -> Cursor:
        """Run a statement."""


class RetryableError(Exception):
    """The work may be run again; when that does not help, ``reason`` tells why the store is unavailable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLostError(RetryableError):
    """The connection broke while it was used; the operation may have been applied."""


class ConflictError(RetryableError):
    """The database undid the transaction in favour of another one."""


class DuplicateOperationError(Exception):
    """The same operation id was recorded while this write ran; it was undone."""


class AlreadyRecordedError(Exception):
    """The operation id was found recorded; what the transaction did so far is to be undone."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class NotAnIntegerError(Exception):
    """The stored value is not an integer."""


class OutOfRangeError(Exception):
    """The sum is not a signed 64-bit integer."""


class QuotaRefusedError(Exception):
    """A ledger's check refused the write; ``requested_bytes`` is its growth, or 0 where that is not known.

    A plain statement does not know it. What it was refused is planned the next time, and then it is known.
    """

    def __init__(self, *, is_global: bool, requested_bytes: int = 0) -> None:
        super().__init__(is_global, requested_bytes)
        self.is_global = is_global
        self.requested_bytes = requested_bytes


#: What ends a write, each in a way of its own that ``SqlAdapter`` knows.
SIGNALS = (DuplicateOperationError, NotAnIntegerError, OutOfRangeError, QuotaRefusedError)


@dataclass(frozen=True, slots=True)
class Write:
    """A write, ready for the database.

    ``action`` is a step's, or ``batch``, ``clear`` or ``set_quota``. Of a batch that is not ``atomic``, steps
    are refused on their own; ``purged`` tells for which quotas (True is the global one) that is final.
    """

    action: str
    namespace: str
    operation_id: str
    fingerprint: str
    steps: tuple[Step, ...] = ()
    atomic: bool = True
    quota_bytes: int | None = None
    purged: frozenset[bool] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether it takes one statement."""
        return self.action in {"set", "delete", "increment"} and not self.steps[0].is_conditional

    @property
    def keys(self) -> list[str]:
        """The keys of the steps in order, each once."""
        return sorted({step.key for step in self.steps})

    @property
    def read_keys(self) -> list[str]:
        """The keys whose values the steps depend on."""
        return sorted({step.key for step in self.steps if step.action in {"get", "increment"}})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dialect writes with each operation: the quotas in bytes, and how long records are kept."""

    namespace_bytes: int
    global_bytes: int | None
    retention_seconds: float


@dataclass(frozen=True, slots=True)
class Record:
    """A write's record; ``now`` is the database's clock in seconds since 1970."""

    fingerprint: str
    result: str
    now: float
    replayed: bool


class Dialect(ABC):
    """A database: how to connect to it, run the named statements on it, and read its errors."""

    name: ClassVar[str]
    #: Where its ``sql`` folder is.
    package: ClassVar[str]
    driver: ClassVar[str]
    driver_errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self) -> None:
        self.statements = load_statements(self.package)

    @abstractmethod
    def make_engine(self) -> Engine:
        """Make an engine as configured; it connects later."""

    def needs_fork_gate(self) -> bool:
        """Tell whether a process must close its connections before it forks, though the child opens its own."""
        return False

    @abstractmethod
    def is_idle(self, connection: Any) -> bool:
        """Tell whether the driver's connection is open and in no transaction."""

    @abstractmethod
    def translate(self, error: Exception) -> Exception:
        """Give the error, or the signal, that the driver's error means."""

    def cause_of(self, error: Exception) -> Exception | None:
        """Give the driver's error for a traceback, or None if it may quote what is stored."""
        return error

    @abstractmethod
    def cannot_connect(self, error: Exception) -> Exception:
        """Give the error that a failure to connect means."""

    @abstractmethod
    def transaction(self, connection: Any) -> AbstractContextManager[object]:
        """Run several statements as one transaction."""

    @abstractmethod
    def write(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        """Apply a write, or find its record, in one transaction."""

    @abstractmethod
    def apply_many(self, connection: Any, writes: Sequence[Write], limits: Limits) -> list[Record | GetResult | None]:
        """Take writes, and reads, in one transaction; None for each that is to be taken alone."""

    @abstractmethod
    def read_entries(self, connection: DriverConnection, namespace: str, keys: list[str]) -> tuple[list[Any], float]:
        """Read live entries: rows (key, text, expiry, size, version), and the clock."""

    @abstractmethod
    def delete_expired(
        self, connection: DriverConnection, statement: str, params: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Run a batch that deletes expired entries, in its own transaction: rows and bytes."""

    def prune_records(self, connection: DriverConnection, params: Mapping[str, Any]) -> tuple[int, float | None]:
        """Run a batch that deletes operation records past their retention: rows, and where the next one may begin."""
        rows, until = self.fetch_one(connection, "prune_batch", params)
        return rows, until

    def run(self, connection: DriverConnection, statement: str, params: Mapping[str, Any]) -> Cursor:
        """Run a named statement."""
        return connection.execute(self.statements[statement], params)

    def fetch_one(self, connection: DriverConnection, statement: str, params: Mapping[str, Any]) -> Any:
        """Run a named statement and give its first row, or None."""
        return self.run(connection, statement, params).fetchone()

    def lock_ledger(self, connection: Any, namespace: str) -> tuple[int, int, int | None] | None:
        """Lock a ledger, in one row: bytes and entries used, and its own quota; None if there is no such ledger."""
        row: tuple[int, int, int | None] | None = self.fetch_one(connection, "lock_ledger", {"namespace": namespace})
        return row

    def recorded(self, connection: DriverConnection, namespace: str, operation_id: str) -> Record | None:
        """Read the record of an operation id, if there is one."""
        params = {"namespace": namespace, "operation_id": operation_id}
        row = self.fetch_one(connection, "recorded_operation", params)
        return Record(row[0], row[1], row[2], replayed=True) if row else None
