"""Writes that one statement cannot apply: their entries are locked and read, planned in Python, and stored together.

Dialects differ in how they lock entries and how they store a plan.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kvworker.adapters.sql.dialect import Dialect, DriverConnection, Ledger
from kvworker.adapters.sql.operation_records import batch_answer, batch_record, step_record
from kvworker.adapters.sql.planning import Entry, Plan, Planner, Room, UnboundedRoom
from kvworker.adapters.sql.record_ids import is_ahead, kept_code, record_id
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.signals import (
    AlreadyRecordedError,
    ConflictError,
    NamespaceMissingError,
    QuotaRefusedError,
)
from kvworker.adapters.sql.write import Limits, Record, Write
from kvworker.errors import ReadTooLargeError
from kvworker.model import MAX_READ_BYTES

_MAX_DELETE_ROUNDS: Final = 100
NAMESPACE_KEPT_GROWING: Final = "new entries kept arriving while the namespace was cleared"


class Locked(NamedTuple):
    """The entries of a write, locked and read, missing ones included.

    ``recorded`` is the write's record if it was applied before. It is looked for once the entries are locked, since the
    same operation may have held these locks.
    """

    entries: Mapping[str, Entry]
    planner: Planner
    recorded: Record | None


class PlannedWrite(NamedTuple):
    """A write's plan, the parameters that store it, and the record for its caller."""

    plan: Plan
    params: Mapping[str, Any]
    record: Record


class PlanningDialect(Dialect):
    """A database whose writes can be planned."""

    @abstractmethod
    def apply_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Lock, plan and store a write of steps in one transaction, which an exception rolls back.

        Raises:
            AlreadyRecordedError: its operation id is recorded.
            StepRefusedError: a step was refused, and the write with it.
        """

    @abstractmethod
    def store_plan(self, connection: Any, params: Mapping[str, Any], plan: Plan) -> None:
        """Store the planned entries, the record and the ledgers; ``params`` has everything but the entries."""

    @abstractmethod
    def delete_entries(self, connection: Any, namespace: str, *, may_wait: bool) -> tuple[int, int, int, int]:
        """Delete all entries of a namespace.

        Returns:
            The rows, how many of them were live, their bytes, and the operation records that they held in reserve.

        Raises:
            ConflictError: another writer holds an entry, and ``may_wait`` is false.
        """

    def write_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Plan and apply a write in one transaction, or return its record if it was applied before."""
        try:
            return self.apply_planned(connection, write, limits)
        except AlreadyRecordedError as found:
            return found.record

    def clear(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Remove every entry of a namespace in one transaction, or return the record of the same operation."""
        params = common_params(write, limits)
        with self.transaction(connection):
            recorded = self.find_record(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            rows, live, freed_bytes, reserve = self._delete_all(connection, write.namespace)
            result = f"{live} {freed_bytes}"
            grown = {"grown_bytes": -freed_bytes, "grown_entries": -rows, "grown_records": 1 - reserve}
            params |= {**_result_params(write, result), **grown}
            self.store_plan(connection, params, Plan({}, {}))
        return Record(write.fingerprint, result, 0.0, replayed=False)

    def _delete_all(self, connection: Any, namespace: str) -> tuple[int, ...]:
        """Delete until a round finds nothing.

        While a delete waits for one entry, others may be written that it does not see. When the last round begins,
        everything written before that moment is gone.
        """
        total: tuple[int, ...] = (0, 0, 0, 0)
        for number in range(_MAX_DELETE_ROUNDS):
            found = self.delete_entries(connection, namespace, may_wait=number == 0)
            if found[0] == 0:
                return total
            total = tuple(map(sum, zip(total, found, strict=True)))
        raise ConflictError(NAMESPACE_KEPT_GROWING)

    def plan(self, connection: Any, write: Write, limits: Limits, locked: Locked) -> PlannedWrite:
        """Plan a write of steps within the transaction that holds its locks. Changes nothing.

        Raises:
            AlreadyRecordedError, StepRefusedError: as ``apply_planned``.
        """
        entries, planner, recorded = locked
        if recorded is not None:
            raise AlreadyRecordedError(recorded)
        # After a refusal, lock the ledgers: that merges a split ledger, so the write sees all that its quota has left.
        room = self._lock_room(connection, write, limits) if write.purged else UnboundedRoom()
        plan = planner.plan(entries, write.steps, None if write.atomic else room)
        if isinstance(room, UnboundedRoom) and not room.fits_each_step():
            plan = planner.plan(entries, write.steps, self._lock_room(connection, write, limits))
        record, answer = _record_and_answer(write, plan)
        params = {
            **common_params(write, limits),
            **_result_params(write, record, planner.now),
            "grown_bytes": plan.grown_bytes,
            "grown_entries": plan.grown_entries,
            "grown_records": plan.grown_records,
        }
        return PlannedWrite(plan, params, Record(write.fingerprint, answer, planner.now, replayed=False))

    @contextmanager
    def charging(self, plan: Plan) -> Iterator[None]:
        """Let the refusal of a quota in a ``with`` block that stores a plan say how much the plan grows."""
        try:
            yield
        except self.driver_errors as error:
            meaning = self.translate(error)
            if isinstance(meaning, QuotaRefusedError):
                raise QuotaRefusedError(meaning.quota, plan.grown_bytes) from error
            raise

    def _lock_room(self, connection: DriverConnection, write: Write, limits: Limits) -> Room:
        """Lock the ledgers, the namespace's first, and return the room that they leave."""
        ledger = self._lock_namespace(connection, write.namespace)
        global_ledger = self.lock_ledger(connection, GLOBAL_LEDGER)
        return Room(
            limits.namespace_bytes if ledger.quota_bytes is None else ledger.quota_bytes,
            ledger.used_bytes,
            limits.global_bytes,
            global_ledger.used_bytes if global_ledger else 0,
            write.purged,
            limits.entries * ledger.limit_factor,
            ledger.entry_count,
        )

    def _lock_namespace(self, connection: Any, namespace: str) -> Ledger:
        """Lock a namespace's ledger and return it.

        Raises:
            NamespaceMissingError: it does not exist.
        """
        ledger = self.lock_ledger(connection, namespace)
        if ledger is None:
            raise NamespaceMissingError
        return ledger

    def set_quota(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Set or remove a namespace's own quota, or return the record of the same operation."""
        quota = {"quota_bytes": write.quota_bytes, "limit_factor": limits.factor(write.quota_bytes)}
        params = {**common_params(write, limits), **quota, **_result_params(write, "")}
        with self.transaction(connection):
            recorded = self.find_record(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            grown = {"grown_bytes": 0, "grown_entries": 0, "grown_records": 1}
            self.store_plan(connection, {**params, **grown}, Plan({}, {}))
            self._lock_namespace(connection, write.namespace)
            self.run(connection, "set_quota", params)
        return Record(write.fingerprint, "", 0.0, replayed=False)


def common_params(write: Write, limits: Limits) -> dict[str, Any]:
    """Return the parameters that the statements of every write share."""
    return {
        "namespace": write.namespace,
        "operation_id": write.operation_id,
        "fingerprint": write.fingerprint,
        "limit_bytes": limits.namespace_bytes,
        "global_limit": limits.global_bytes,
        "entry_limit": limits.entries,
        "record_limit": limits.records,
        "retention_seconds": limits.retention_of(write),
        # Numbers go as text: psycopg would send integers of different sizes as different types, and prepare for each.
        "id": record_id(write.operation_id),
        "request": str(write.request_digest),
        "kept": str(kept_code(limits.retention_of(write))),
    }


def _result_params(write: Write, result: str, now: float = 0.0) -> dict[str, Any]:
    """Return the result of a write, also without the version that the write made, which the stamp tells."""
    text, mark, version = result.rpartition("v")
    if write.action not in {"set", "increment"} or not mark or is_ahead(int(version), now):
        return {"result": result, "compact_result": result, "stamp": None}
    return {"result": result, "compact_result": text + mark, "stamp": version}


def _record_and_answer(write: Write, plan: Plan) -> tuple[str, str]:
    """Return the record to store, and the same with what the write read."""
    if write.action != "batch":
        (outcome,) = plan.outcomes
        return step_record(write.steps[0], str(outcome)), str(outcome)
    if plan.read_bytes > MAX_READ_BYTES:
        raise ReadTooLargeError(MAX_READ_BYTES)
    batch = (write.namespace, write.steps, plan.outcomes)
    record = batch_record(*batch)
    return record, batch_answer(*batch) if any(step.reads_value for step in write.steps) else record
