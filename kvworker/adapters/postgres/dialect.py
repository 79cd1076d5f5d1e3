"""PostgreSQL through psycopg: one statement and one round trip for each plain operation."""

# ruff: noqa: D102 - the base classes document the methods.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Final

import psycopg
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from kvworker.adapters.postgres.apply_many import read_params, read_results, run_calls
from kvworker.adapters.postgres.connection import OneCursorConnection, bounded
from kvworker.adapters.postgres.encoding import check_encoding
from kvworker.adapters.postgres.engine import answer_seconds, make_postgres_engine, timeout_milliseconds
from kvworker.adapters.postgres.errors import cannot_connect, missing_privilege, quotes_data, translate, write_signal
from kvworker.adapters.postgres.inspection import read_connections
from kvworker.adapters.postgres.ledger_shares import LedgerSplitter
from kvworker.adapters.postgres.pipelining import Call, rolling_back, run_pipelined
from kvworker.adapters.postgres.planned_writes import locking_calls, plan_params, read_locked, record_or_refuse
from kvworker.adapters.postgres.single_statements import (
    may_apply_alone,
    params_of,
    rate_limit_params,
    statements_of,
)
from kvworker.adapters.postgres.size_predictor import SizePredictor
from kvworker.adapters.postgres.stamps import correct_stamp
from kvworker.adapters.sql.dialect import DriverConnection, Ledger, record_names
from kvworker.adapters.sql.planned_writes import NAMESPACE_KEPT_GROWING, Locked, PlanningDialect
from kvworker.adapters.sql.planning import Plan
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.signals import ConflictError, DuplicateOperationError, NamespaceMissingError
from kvworker.adapters.sql.statements import StatementName
from kvworker.adapters.sql.write import Limits, Record, Write, whole_result
from kvworker.errors import StoreUnavailableError
from kvworker.model import MAX_READ_BYTES, DatabaseConnections, GetResult
from kvworker.settings.adapters import PostgresSettings

#: A process that freezes in a transaction must not keep its locks from all others. SET takes no parameters.
_BEGIN: Final = sql.SQL(
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
)


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
        self._begin = _BEGIN.format(milliseconds=timeout_milliseconds(settings)).as_string(None)
        self._sizes = SizePredictor()
        self._splitter = LedgerSplitter(self)
        self._has_global_ledger = False

    def make_engine(self) -> Engine:
        assert self._url is not None  # noqa: S101 - without a url the host's engine is used
        return make_postgres_engine(self._url, self._settings)

    def check_usable(self, connection: psycopg.Connection[Any]) -> None:
        is_standby, missing = self.fetch_one(connection, "missing_rights", {})
        if is_standby:
            raise StoreUnavailableError("the database is a standby, which takes no writes")
        if missing:
            raise missing_privilege(f"it lacks {missing}")

    def is_idle(self, connection: psycopg.Connection[Any]) -> bool:
        pgconn = connection.pgconn
        is_pipelined = pgconn.pipeline_status != PipelineStatus.OFF
        return not connection.closed and not is_pipelined and pgconn.transaction_status == TransactionStatus.IDLE

    def bounded(self, connection: psycopg.Connection[Any]) -> AbstractContextManager[object]:
        return bounded(connection, answer_seconds(self._settings))

    def check_encoding(self, connection: psycopg.Connection[Any]) -> None:
        check_encoding(connection)

    def run(self, connection: Any, statement: StatementName, params: Mapping[str, Any]) -> Any:
        """Run a statement with binary results, which no setting of the session formats or rounds."""
        return connection.execute(self.statements[statement], params, binary=True)

    def fetch_one(self, connection: Any, statement: StatementName, params: Mapping[str, Any]) -> Any:
        """Run a statement on the connection's reused cursor, which saves making one for each."""
        if isinstance(connection, OneCursorConnection):
            return connection.reused_cursor.execute(self.statements[statement], params).fetchone()
        return self.run(connection, statement, params).fetchone()

    def translate(self, error: Exception) -> Exception:
        return translate(error)

    def cause_of(self, error: Exception) -> Exception | None:
        """Hide an error whose text quotes a row or a parameter."""
        return None if quotes_data(error) else error

    def cannot_connect(self, error: Exception) -> Exception:
        """Describe the failure without the password, which libpq may quote."""
        return cannot_connect(error, self._url, self._settings.url_file)

    @contextmanager
    def transaction(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Run a ``with`` block as one transaction whose statements each see everything committed before them."""
        with rolling_back(connection):
            connection.execute(self._begin, prepare=False)
            yield
            connection.commit()

    @contextmanager
    def inspection(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        with self.transaction(connection):
            self.run(connection, "bound_inspection", {})
            yield

    def write(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        """Apply a write: in one statement if there is one for it and no quota has refused it."""
        try:
            return self._write(connection, write, limits)
        except psycopg.Error as error:
            signal = write_signal(error, write)
            if signal is None:
                raise
            raise signal from None

    def _write(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        if write.action == "clear":
            return self.clear(connection, write, limits)
        if write.action == "set_quota":
            return self.set_quota(connection, write, limits)
        if may_apply_alone(write) and not write.purged:
            return self._write_plain(connection, write, limits)
        params = rate_limit_params(write, limits)
        if params and (row := self.fetch_one(connection, "take_from_limit_in_place", params)):
            return self._record_of(connection, write, limits, row)
        return self.write_planned(connection, write, limits)

    def apply_many(
        self, connection: psycopg.Connection[Any], writes: Sequence[Write], limits: Limits
    ) -> list[Record | GetResult | None]:
        """Apply plain writes and reads in a transaction that goes to the server in one packet.

        It gives up on a lock after 50 ms, so it cannot deadlock for long with writers that lock the same rows in
        another order. Writes go in the order of their keys, so that two such transactions seldom meet.
        """
        plain = [i for i, write in enumerate(writes) if write.is_plain]
        plain.sort(key=lambda i: (writes[i].namespace, writes[i].steps[0].key))
        places = [i for i, write in enumerate(writes) if write.action == "get"]
        reads = [writes[i] for i in places]
        calls = [self._first_call(writes[i], limits) for i in plain]
        if reads:
            calls.append((self.statements["get_entries"], read_params(reads)))
        try:
            begin = (self.statements["begin"], self.statements["bound_transaction"])
            rows = run_calls(connection, begin, calls, is_transaction=bool(plain))
        except psycopg.errors.DivisionByZero:
            raise NamespaceMissingError from None
        outcomes: list[Record | GetResult | None] = [None] * len(writes)
        if reads:
            for i, result in zip(places, read_results(reads, rows.pop()), strict=True):
                outcomes[i] = result
        for i, found in zip(plain, rows, strict=True):
            outcomes[i] = self._outcome_of(connection, writes[i], limits, found)
        return outcomes

    def _outcome_of(
        self, connection: psycopg.Connection[Any], write: Write, limits: Limits, found: Sequence[Any]
    ) -> Record | None:
        if found:
            return self._record_of(connection, write, limits, found[0])
        self._sizes.record_write(write.namespace, write.steps[0].key, kept_size=False)
        return None

    def _first_call(self, write: Write, limits: Limits) -> Call:
        """Return the statement that will most likely apply the write, and its parameters."""
        name = self._in_place_statement(write) or self._charging_statement(write, limits)
        return self.statements[name], params_of(write, limits)

    def _write_plain(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        params = params_of(write, limits)
        row = None
        if in_place := self._in_place_statement(write):
            row = self.fetch_one(connection, in_place, params)
        if row is None:
            row = self.fetch_one(connection, self._charging_statement(write, limits), params)
        if row is not None:
            return self._record_of(connection, write, limits, row)
        if not write.is_plain:
            return self.write_planned(connection, write, limits)
        if write.steps[0].is_conditional:
            return self._explain(connection, write) or self.write_planned(connection, write, limits)
        raise DuplicateOperationError

    def _explain(self, connection: DriverConnection, write: Write) -> Record | None:
        """Return the record of a conditional write that did not apply, or None if it may apply now.

        Raises:
            StepRefusedError: its condition does not hold.
        """
        names = {"key": write.steps[0].key, **record_names(write.namespace, write.operation_id)}
        return record_or_refuse(write, self.run(connection, "explain_refusal", names).fetchall())

    def _in_place_statement(self, write: Write) -> StatementName | None:
        """Return the statement that touches no ledger, if there is one and the entry will most likely keep its size."""
        statement = statements_of(write).in_place
        return statement if statement and self._sizes.expects_same_size(write.namespace, write.steps[0].key) else None

    def _record_of(self, connection: DriverConnection, write: Write, limits: Limits, row: Sequence[Any]) -> Record:
        """Return the record from the row of a write's statement, and learn from the rest of the row."""
        result, stamp, now, *charged = row
        correct_stamp(self, connection, write, stamp=stamp, now=now)
        name = (write.namespace, write.steps[0].key)
        if len(charged) > 1:
            grew, *meetings, _ = charged
            self._sizes.record_write(*name, kept_size=not grew)
            self._split_where_writers_met(connection, write, limits, meetings)
        elif charged == [False]:
            # No operation record is left in reserve, so the next write must charge the ledger.
            self._sizes.record_write(*name, kept_size=False)
        return Record(write.fingerprint, whole_result(result, stamp), now, replayed=False)

    def _split_where_writers_met(
        self, connection: DriverConnection, write: Write, limits: Limits, meetings: Sequence[bool | None]
    ) -> None:
        for namespace, met in zip((write.namespace, GLOBAL_LEDGER), meetings, strict=False):
            if met:
                self._splitter.split(connection, namespace, limits)

    def _charging_statement(self, write: Write, limits: Limits) -> StatementName:
        statements = statements_of(write)
        globally = limits.global_bytes is not None or self._has_global_ledger
        return statements.charging_globally if globally else statements.charging

    def lock_ledger(self, connection: DriverConnection, namespace: str) -> Ledger | None:
        """Lock a ledger, and merge the shares into which it was split for concurrent writers."""
        params = {"namespace": namespace}
        first = self.fetch_one(connection, "lock_ledger", params)
        if first is None:
            return None
        self._has_global_ledger = self._has_global_ledger or namespace == GLOBAL_LEDGER
        used_bytes, entry_count, record_count = self.fetch_one(connection, "merge_shares", params) or first[:3]
        return Ledger(used_bytes, entry_count, record_count, first[3], first[-1])

    def apply_planned(self, connection: psycopg.Connection[Any], write: Write, limits: Limits) -> Record:
        """Apply a write in two round trips, unless its plan needs to know the room that the quotas leave."""
        with rolling_back(connection):
            plan, params, record = self.plan(connection, write, limits, self._lock_entries(connection, write))
            with self.charging(plan):
                store = (self.statements["store_plan"], plan_params(params, plan))
                run_pipelined(connection, [store, ("COMMIT", {})])
        return record

    def _lock_entries(self, connection: psycopg.Connection[Any], write: Write) -> Locked:
        calls = locking_calls(self.statements, write, timeout_milliseconds(self._settings))
        _, entries, records = run_pipelined(connection, calls)
        return read_locked(write, entries.fetchall(), records.fetchall())

    def store_plan(self, connection: DriverConnection, params: Mapping[str, Any], plan: Plan) -> None:
        self.run(connection, "store_plan", plan_params(params, plan))

    def delete_entries(
        self, connection: DriverConnection, namespace: str, *, may_wait: bool
    ) -> tuple[int, int, int, int]:
        statement: StatementName = "delete_entries" if may_wait else "delete_arrived"
        try:
            rows, live, freed_bytes, reserve = self.fetch_one(connection, statement, {"namespace": namespace})
        except psycopg.errors.LockNotAvailable as error:
            raise ConflictError(NAMESPACE_KEPT_GROWING) from error
        return rows, live, freed_bytes, reserve

    def read_entries(self, connection: DriverConnection, namespace: str, keys: list[str]) -> tuple[list[Any], float]:
        """Read all entries in one statement, so that they are of the same instant."""
        params = {"namespace": namespace, "keys": keys, "max_bytes": MAX_READ_BYTES}
        rows = self.run(connection, "read_entries", params).fetchall()
        return [row[:-1] for row in rows], max((row[-1] for row in rows), default=0.0)

    def delete_expired(
        self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]
    ) -> tuple[int, int]:
        rows, freed_bytes = self.fetch_one(connection, statement, params)
        return rows, freed_bytes

    def connections(self, connection: DriverConnection) -> DatabaseConnections:
        return read_connections(self, connection)
