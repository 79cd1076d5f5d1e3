"""Writes that need more than one look: their entries are locked and read, planned in Python, and stored at once.

What differs between databases is how entries are locked and how a plan is stored.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from kvworker.adapters.sql.dialect import (
    AlreadyRecordedError,
    ConflictError,
    Dialect,
    DriverConnection,
    Limits,
    QuotaRefusedError,
    Record,
    Write,
)
from kvworker.adapters.sql.operation_records import batch_record
from kvworker.adapters.sql.planning import Entry, OpenRoom, Plan, Planner, Room
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.errors import ReadTooLargeError

#: Bytes of values that a batch which also writes may read: its record keeps them, for a replay to give again.
MAX_RECORDED_READ_BYTES = 65_536
_MAX_CLEARING_LOOKS = 100
KEPT_COMING = "new entries kept coming while the namespace was cleared"


class PlanningDialect(Dialect):
    """A database whose writes can be planned."""

    @abstractmethod
    def lock_entries(self, connection: Any, write: Write) -> tuple[Mapping[str, Entry], Planner]:
        """Lock every entry of the write and read it; one that is not there is locked as well."""

    @abstractmethod
    def store_plan(self, connection: Any, params: Mapping[str, Any], plan: Plan) -> None:
        """Store entries, record and ledgers; ``params`` has all but the entries."""

    @abstractmethod
    def delete_entries(self, connection: Any, namespace: str, *, again: bool) -> tuple[int, int, int]:
        """Delete all entries of a namespace: rows, live ones, bytes. Only the first time it waits for others.

        Raises:
            ConflictError: ``again``, and somebody works on an entry that came meanwhile.
        """

    def write_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Plan and apply a write in one transaction, or find its record."""
        try:
            with self.transaction(connection):
                return self.plan_and_store(connection, write, limits)
        except AlreadyRecordedError as found:
            return found.record

    def clear(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Remove every entry of a namespace in one transaction, or find the record of that."""
        params = common_params(write, limits)
        with self.transaction(connection):
            recorded = self.recorded(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            rows, live, freed_bytes = self._delete_all(connection, write.namespace)
            result = f"{live} {freed_bytes}"
            params |= {"result": result, "grown_bytes": -freed_bytes, "grown_entries": -rows}
            self.store_plan(connection, params, Plan({}, {}))
        return Record(write.fingerprint, result, 0.0, replayed=False)

    def _delete_all(self, connection: Any, namespace: str) -> tuple[int, int, int]:
        """Delete until nothing is left: while a delete waits for one entry, others come that it does not see.

        So there is a moment, that of the last look, before which all that was written is gone.
        """
        total = (0, 0, 0)
        for look in range(_MAX_CLEARING_LOOKS):
            found = self.delete_entries(connection, namespace, again=look > 0)
            if found[0] == 0:
                return total
            total = (total[0] + found[0], total[1] + found[1], total[2] + found[2])
        raise ConflictError(KEPT_COMING)

    def plan_and_store(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Apply a write of steps within a transaction. What these two tell is told before anything is changed.

        Raises:
            AlreadyRecordedError: its operation id is recorded.
            StepRefusedError: a step was refused, and with it the write.
        """
        entries, planner = self.lock_entries(connection, write)
        # Only now: the same operation may have held these locks.
        recorded = self.recorded(connection, write.namespace, write.operation_id)
        if recorded is not None:
            raise AlreadyRecordedError(recorded)
        # What was refused is tried again with all that a quota has left in one row.
        room = self._room(connection, write, limits) if write.purged else OpenRoom()
        plan = planner.plan(entries, write.steps, None if write.atomic else room)
        if isinstance(room, OpenRoom) and not room.is_certain():
            plan = planner.plan(entries, write.steps, self._room(connection, write, limits))
        record = _record_of(write, plan)
        self._store(connection, write, limits, plan, record)
        return Record(write.fingerprint, record, planner.now, replayed=False)

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

    def _room(self, connection: DriverConnection, write: Write, limits: Limits) -> Room:
        """Lock the ledgers, the namespace's first, and tell what they have left: steps are refused one by one."""
        used_bytes, own_quota = self.lock_namespace(connection, write.namespace)
        store = self.lock_ledger(connection, GLOBAL_LEDGER)
        return Room(
            limits.namespace_bytes if own_quota is None else own_quota,
            used_bytes,
            limits.global_bytes,
            store[0] if store else 0,
            write.purged,
        )

    def lock_namespace(self, connection: Any, namespace: str) -> tuple[int, int | None]:
        """Lock a namespace's ledger, which is made if need be: bytes used, and the namespace's own quota."""
        while True:
            ledger = self.lock_ledger(connection, namespace)
            if ledger is not None:
                return ledger[0], ledger[2]
            # A recompute may remove it again before it is locked.
            self.run(connection, "create_ledger", {"namespace": namespace})

    def set_quota(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Give a namespace a quota of its own, or none, or find the record of that."""
        params = {**common_params(write, limits), "quota_bytes": write.quota_bytes, "result": ""}
        with self.transaction(connection):
            recorded = self.recorded(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            self.run(connection, "record_operation", params)
            self.lock_namespace(connection, write.namespace)
            self.run(connection, "set_quota", params)
        return Record(write.fingerprint, "", 0.0, replayed=False)


def common_params(write: Write, limits: Limits) -> dict[str, Any]:
    """Give what every write tells the database."""
    return {
        "namespace": write.namespace,
        "operation_id": write.operation_id,
        "fingerprint": write.fingerprint,
        "limit_bytes": limits.namespace_bytes,
        "global_limit_bytes": limits.global_bytes,
        "retention_seconds": limits.retention_seconds,
    }


def _record_of(write: Write, plan: Plan) -> str:
    if write.action != "batch":
        (outcome,) = plan.outcomes
        return str(outcome)
    if plan.read_bytes > MAX_RECORDED_READ_BYTES:
        raise ReadTooLargeError(MAX_RECORDED_READ_BYTES)
    return batch_record(write.namespace, write.steps, plan.outcomes)
