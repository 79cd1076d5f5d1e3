"""Writes that one statement cannot apply: their entries are locked and read, planned in Python, and stored together.

Dialects differ in how they lock entries and how they store a plan.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from kvworker.adapters.sql.dialect import Dialect, DriverConnection
from kvworker.adapters.sql.operation_records import batch_answer, batch_record
from kvworker.adapters.sql.planning import Entry, Plan, Planner, Room, UnboundedRoom
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.signals import AlreadyRecordedError, ConflictError, QuotaRefusedError
from kvworker.adapters.sql.write import Limits, Record, Write
from kvworker.errors import ReadTooLargeError
from kvworker.model import MAX_READ_BYTES

_MAX_DELETE_ROUNDS: Final = 100
NAMESPACE_KEPT_GROWING: Final = "new entries kept arriving while the namespace was cleared"


class PlanningDialect(Dialect):
    """A database whose writes can be planned."""

    @abstractmethod
    def lock_entries(self, connection: Any, write: Write) -> tuple[Mapping[str, Entry], Planner]:
        """Lock and read every entry of the write, missing ones included."""

    @abstractmethod
    def store_plan(self, connection: Any, params: Mapping[str, Any], plan: Plan) -> None:
        """Store the planned entries, the record and the ledgers; ``params`` has everything but the entries."""

    @abstractmethod
    def delete_entries(self, connection: Any, namespace: str, *, may_wait: bool) -> tuple[int, int, int]:
        """Delete all entries of a namespace; return the rows, how many of them were live, and their bytes.

        Raises:
            ConflictError: another writer holds an entry, and ``may_wait`` is false.
        """

    def write_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Plan and apply a write in one transaction, or return its record if it was applied before."""
        try:
            with self.transaction(connection):
                return self.plan_and_store(connection, write, limits)
        except AlreadyRecordedError as found:
            return found.record

    def clear(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Remove every entry of a namespace in one transaction, or return the record of the same operation."""
        params = common_params(write, limits)
        with self.transaction(connection):
            recorded = self.find_record(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            rows, live, freed_bytes = self._delete_all(connection, write.namespace)
            result = f"{live} {freed_bytes}"
            params |= {"result": result, "grown_bytes": -freed_bytes, "grown_entries": -rows}
            self.store_plan(connection, params, Plan({}, {}))
        return Record(write.fingerprint, result, 0.0, replayed=False)

    def _delete_all(self, connection: Any, namespace: str) -> tuple[int, int, int]:
        """Delete until a round finds nothing.

        While a delete waits for one entry, others may be written that it does not see. When the last round begins,
        everything written before that moment is gone.
        """
        total = (0, 0, 0)
        for number in range(_MAX_DELETE_ROUNDS):
            found = self.delete_entries(connection, namespace, may_wait=number == 0)
            if found[0] == 0:
                return total
            total = (total[0] + found[0], total[1] + found[1], total[2] + found[2])
        raise ConflictError(NAMESPACE_KEPT_GROWING)

    def plan_and_store(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Apply a write of steps within a transaction. Both signals are raised before anything changes.

        Raises:
            AlreadyRecordedError: its operation id is recorded.
            StepRefusedError: a step was refused, and the write with it.
        """
        entries, planner = self.lock_entries(connection, write)
        # Look only now: the same operation may have held these locks.
        recorded = self.find_record(connection, write.namespace, write.operation_id)
        if recorded is not None:
            raise AlreadyRecordedError(recorded)
        # After a refusal, lock the ledgers: that merges a split ledger, so the write sees all that its quota has left.
        room = self._lock_room(connection, write, limits) if write.purged else UnboundedRoom()
        plan = planner.plan(entries, write.steps, None if write.atomic else room)
        if isinstance(room, UnboundedRoom) and not room.fits_each_step():
            plan = planner.plan(entries, write.steps, self._lock_room(connection, write, limits))
        record, answer = _record_and_answer(write, plan)
        self._store(connection, write, limits, plan, record)
        return Record(write.fingerprint, answer, planner.now, replayed=False)

    def _store(self, connection: Any, write: Write, limits: Limits, plan: Plan, record: str) -> None:
        params = {
            **common_params(write, limits),
            "result": record,
            "grown_bytes": plan.grown_bytes,
            "grown_entries": plan.grown_entries,
        }
        try:
            self.store_plan(connection, params, plan)
        except self.driver_errors as error:
            meaning = self.translate(error)
            if isinstance(meaning, QuotaRefusedError):
                raise QuotaRefusedError(is_global=meaning.is_global, requested_bytes=plan.grown_bytes) from error
            raise

    def _lock_room(self, connection: DriverConnection, write: Write, limits: Limits) -> Room:
        """Lock the ledgers, the namespace's first, and return the room that they leave."""
        used_bytes, own_quota = self._lock_namespace(connection, write.namespace)
        global_ledger = self.lock_ledger(connection, GLOBAL_LEDGER)
        return Room(
            limits.namespace_bytes if own_quota is None else own_quota,
            used_bytes,
            limits.global_bytes,
            global_ledger[0] if global_ledger else 0,
            write.purged,
        )

    def _lock_namespace(self, connection: Any, namespace: str) -> tuple[int, int | None]:
        """Lock a namespace's ledger, creating it if necessary; return the bytes used and the namespace's own quota."""
        while True:
            ledger = self.lock_ledger(connection, namespace)
            if ledger is not None:
                return ledger[0], ledger[2]
            # A recompute may remove it again before it is locked.
            self.run(connection, "create_ledger", {"namespace": namespace})

    def set_quota(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Set or remove a namespace's own quota, or return the record of the same operation."""
        params = {**common_params(write, limits), "quota_bytes": write.quota_bytes, "result": ""}
        with self.transaction(connection):
            recorded = self.find_record(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            self.run(connection, "record_operation", params)
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
        "global_limit_bytes": limits.global_bytes,
        "retention_seconds": limits.retention_seconds,
    }


def _record_and_answer(write: Write, plan: Plan) -> tuple[str, str]:
    """Return the record to store, and the same with what the write read."""
    if write.action != "batch":
        (outcome,) = plan.outcomes
        return str(outcome), str(outcome)
    if plan.read_bytes > MAX_READ_BYTES:
        raise ReadTooLargeError(MAX_READ_BYTES)
    batch = (write.namespace, write.steps, plan.outcomes)
    record = batch_record(*batch)
    return record, batch_answer(*batch) if any(step.action == "get" for step in write.steps) else record
