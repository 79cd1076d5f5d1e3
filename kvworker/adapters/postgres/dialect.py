"""PostgreSQL through psycopg: one statement and one round trip per operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from kvworker.adapters.postgres.apply_many import Call, read_params, read_results, run_together
from kvworker.adapters.postgres.connection import OneCursorConnection
from kvworker.adapters.postgres.errors import cannot_connect, quotes_data, translate
from kvworker.adapters.postgres.ledger_shares import LedgerSplitter
from kvworker.adapters.postgres.size_predictor import SizePredictor
from kvworker.adapters.sql.dialect import (
    ConflictError,
    DriverConnection,
    DuplicateOperationError,
    Limits,
    Record,
    Write,
)
from kvworker.adapters.sql.planned_writes import KEPT_COMING, PlanningDialect, common_params
from kvworker.adapters.sql.planning import Entry, Plan, Planner
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.model import MAX_READ_BYTES, GetResult
from kvworker.settings.adapters import PostgresSettings

#: A server that is not there must be an error within seconds. A url may set each of these differently.
_CONNECT_DEFAULTS: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class PostgresDialect(PlanningDialect):
    """PostgreSQL through psycopg."""

    name: ClassVar[str] = "postgresql"
    package: ClassVar[str] = __package__
    driver: ClassVar[str] = "psycopg"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)

    def __init__(self, settings: PostgresSettings, url: URL | None) -> None:
        super().__init__()
        self._settings = settings
        self._url = url
        self._sizes = SizePredictor()
        self._splitter = LedgerSplitter(self)
        self._has_global_ledger = False

    def make_engine(self) -> Engine:
        """Make an engine as configured, in autocommit mode."""
        assert self._url is not None  # noqa: S101 - without a url the host's engine is used
        pool = self._settings.pool
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            pool_size=pool.size,
            max_overflow=pool.max_overflow,
            pool_timeout=pool.timeout,
            pool_reset_on_return=None,
            connect_args=self._connect_arguments(self._url),
        )

        @event.listens_for(engine, "do_connect")
        def connect(_dialect: Any, _entry: Any, args: list[Any], arguments: dict[str, Any]) -> OneCursorConnection:
            return OneCursorConnection.connect(*args, **arguments)

        return engine

    def is_idle(self, connection: psycopg.Connection[Any]) -> bool:
        """Tell whether the connection is open and in no transaction."""
        return not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE

    def fetch_one(self, connection: Any, statement: str, params: Mapping[str, Any]) -> Any:
        """Run a named statement and give its first row, or None."""
        runner = connection.reused_cursor if isinstance(connection, OneCursorConnection) else connection
        return runner.execute(self.statements[statement], params).fetchone()

    def translate(self, error: Exception) -> Exception:
        """Give the error, or the signal, that the driver's error means."""
        return translate(error)

    def cause_of(self, error: Exception) -> Exception | None:
        """Give the driver's error for a traceback, or None if it may quote what is stored."""
        return None if quotes_data(error) else error

    def cannot_connect(self, error: Exception) -> Exception:
        """Give the error that a failure to connect means."""
        return cannot_connect(error, self._url.password if self._url else None)

    @contextmanager
    def transaction(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Run several statements as one transaction, in which each sees what was committed before it."""
        # A process that is frozen in the middle must not keep its locks from all others.
        connection.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            f" SET LOCAL idle_in_transaction_session_timeout = {self._timeout_milliseconds()}",
            prepare=False,
        )
        try:
            yield
        except BaseException:
            # Whatever ended the connection is the error, not that it cannot be rolled back.
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            raise
        connection.commit()

    def write(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        """Apply a write, or find its record: in one statement, if it is a plain one that was not refused."""
        if write.action == "clear":
            return self.clear(connection, write, limits)
        if write.action == "set_quota":
            return self.set_quota(connection, write, limits)
        if not write.is_plain or write.purged:
            return self.write_planned(connection, write, limits)
        return self._write_plain(connection, write, limits)

    def apply_many(
        self, connection: psycopg.Connection[Any], writes: Sequence[Write], limits: Limits
    ) -> list[Record | GetResult | None]:
        """Take plain writes, and reads, in a transaction that goes to the server in one packet.

        It waits for no lock longer than a moment: in whatever order others lock the same rows, nobody is stuck. Writes
        go in the order of their keys, so that two of these seldom meet.
        """
        plain = [i for i, write in enumerate(writes) if write.is_plain]
        plain.sort(key=lambda i: (writes[i].namespace, writes[i].steps[0].key))
        places = [i for i, write in enumerate(writes) if write.action == "get"]
        reads = [writes[i] for i in places]
        calls = [self._first_call(writes[i], limits) for i in plain]
        if reads:
            calls.append((self.statements["get_entries"], read_params(reads)))
        outcomes = run_together(connection, calls, is_transaction=bool(plain))
        taken: list[Record | GetResult | None] = [None] * len(writes)
        if reads:
            for i, result in zip(places, read_results(reads, outcomes.pop()), strict=True):
                taken[i] = result
        for i, rows in zip(plain, outcomes, strict=True):
            if rows:
                taken[i] = self._record_of(connection, writes[i], limits, rows[0])
            else:
                self._sizes.learn(writes[i].namespace, writes[i].steps[0].key, stayed=False)
        return taken

    def _first_call(self, write: Write, limits: Limits) -> Call:
        """Give the statement that will most likely do, and its parameters."""
        params = self._plain_params(write, limits)
        return self.statements[f"{write.action}_in_place" if self._stays(write) else _charging(write, params)], params

    def _write_plain(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        params = self._plain_params(write, limits)
        row = None
        if self._stays(write):
            row = self.fetch_one(connection, f"{write.action}_in_place", params)
        if row is None:
            row = self.fetch_one(connection, _charging(write, params), params)
        if row is None:
            raise DuplicateOperationError
        return self._record_of(connection, write, limits, row)

    def _plain_params(self, write: Write, limits: Limits) -> dict[str, Any]:
        (step,) = write.steps
        # As text: the driver would send each size of integer as another type, and prepare again for it.
        return {
            **common_params(write, limits),
            "key": step.key,
            "text": step.text,
            "ttl_seconds": step.ttl_seconds,
            "delta": str(step.delta),
            "globally": self._accounts_globally(limits),
        }

    def _stays(self, write: Write) -> bool:
        return write.action != "delete" and self._sizes.expects_same(write.namespace, write.steps[0].key)

    def _record_of(self, connection: DriverConnection, write: Write, limits: Limits, row: Sequence[Any]) -> Record:
        """Give the record of a write from its statement's row, and learn from it."""
        result, now, *charged = row
        if charged:
            grew, *meetings = charged
            self._sizes.learn(write.namespace, write.steps[0].key, stayed=not grew)
            self._split_where_writers_met(connection, write, limits, meetings)
        return Record(write.fingerprint, result, now, replayed=False)

    def _split_where_writers_met(
        self, connection: DriverConnection, write: Write, limits: Limits, meetings: Sequence[bool | None]
    ) -> None:
        ledgers = ((write.namespace, limits.namespace_bytes), (GLOBAL_LEDGER, limits.global_bytes))
        for (namespace, limit_bytes), met in zip(ledgers, meetings, strict=False):
            if met:
                self._splitter.split(connection, namespace, limit_bytes)

    def _accounts_globally(self, limits: Limits) -> bool:
        return limits.global_bytes is not None or self._has_global_ledger

    def lock_ledger(self, connection: DriverConnection, namespace: str) -> tuple[int, int, int | None] | None:
        """Lock a ledger and make it one row: bytes and entries used, and its own quota."""
        params = {"namespace": namespace}
        first = self.fetch_one(connection, "lock_ledger", params)
        if first is None:
            return None
        self._has_global_ledger = self._has_global_ledger or namespace == GLOBAL_LEDGER
        used_bytes, entry_count = self.fetch_one(connection, "gather_shares", params) or first[:2]
        return used_bytes, entry_count, first[2]

    def lock_entries(self, connection: DriverConnection, write: Write) -> tuple[Mapping[str, Entry], Planner]:
        """Lock every entry of the write and read it; one that is not there is made, to be locked as well."""
        params = {"namespace": write.namespace, "keys": write.keys, "read_keys": write.read_keys}
        rows = self.run(connection, "lock_entries", params).fetchall()
        now = max(row[-1] for row in rows)
        entries = {key: Entry(*state) for key, *state, _ in rows}
        return entries, Planner(write.namespace, now, version=int(now * 1_000_000))

    def store_plan(self, connection: DriverConnection, params: Mapping[str, Any], plan: Plan) -> None:
        """Store entries, record and ledgers in one statement."""
        # Numbers as text, for the reason above; of an entry whose value stays only the rest is sent.
        changed = plan.changed
        columns = {
            "keys": list(changed),
            "texts": [None if e.text == plan.before[key].text else e.text for key, e in changed.items()],
            "expiries": [None if e.expires_at is None else repr(e.expires_at) for e in changed.values()],
            "sizes": [str(e.size_bytes) for e in changed.values()],
            "versions": [str(e.version) for e in changed.values()],
            "removed_keys": plan.removed,
        }
        grown = {name: str(params[name]) for name in ("grown_bytes", "grown_entries")}
        self.run(connection, "store_plan", {**params, **grown, **columns, "globally": True})

    def delete_entries(self, connection: DriverConnection, namespace: str, *, again: bool) -> tuple[int, int, int]:
        """Delete all entries of a namespace that are there now: rows, live ones, bytes."""
        statement = "delete_arrived" if again else "delete_entries"
        try:
            rows, live, freed_bytes = self.fetch_one(connection, statement, {"namespace": namespace})
        except psycopg.errors.LockNotAvailable as error:
            raise ConflictError(KEPT_COMING) from error
        return rows, live, freed_bytes

    def read_entries(self, connection: DriverConnection, namespace: str, keys: list[str]) -> tuple[list[Any], float]:
        """Read live entries: rows (key, text, expiry, size, version), and the clock."""
        params = {"namespace": namespace, "keys": keys, "max_bytes": MAX_READ_BYTES}
        rows = self.run(connection, "read_entries", params).fetchall()
        return [row[:-1] for row in rows], max((row[-1] for row in rows), default=0.0)

    def delete_expired(
        self, connection: DriverConnection, statement: str, params: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Run a batch in one statement: rows and bytes."""
        rows, freed_bytes = self.fetch_one(connection, statement, params)
        return rows, freed_bytes

    def _timeout_milliseconds(self) -> int:
        return max(1, round(self._settings.statement_timeout_seconds * 1000))

    def _connect_arguments(self, url: URL) -> dict[str, Any]:
        arguments: dict[str, Any] = {name: value for name, value in _CONNECT_DEFAULTS.items() if name not in url.query}
        arguments["prepare_threshold"] = self._settings.prepare_threshold
        if self._settings.prepare_threshold is not None:
            # Behind PgBouncer a session's settings are not ours to change. The plans of these statements do not
            # depend on their parameters, and planning them takes longer than running them.
            arguments["options"] = " ".join(
                [
                    *url.normalized_query.get("options", ()),
                    f"-c statement_timeout={self._timeout_milliseconds()}",
                    "-c plan_cache_mode=force_generic_plan",
                    "-c default_transaction_isolation=read\\ committed",
                ]
            )
        return arguments


def _charging(write: Write, params: Mapping[str, Any]) -> str:
    """Name the statement that charges the ledgers."""
    return f"{write.action}_entry_globally" if params["globally"] else f"{write.action}_entry"
