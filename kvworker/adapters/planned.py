"""Writes that need more than one look: their entries are locked and read, planned in Python, and stored at once.

What differs between databases is how entries are locked and how a plan is stored.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from kvworker.adapters.dialect import (
    AlreadyRecordedError,
    Dialect,
    DriverConnection,
    Limits,
    QuotaRefusedError,
    Record,
    Write,
)
from kvworker.adapters.plan import Entry, Plan, Planner, Room
from kvworker.adapters.records import batch_record
from kvworker.adapters.schema import GLOBAL_LEDGER
from kvworker.errors import ReadTooLargeError

#: Bytes of values that a batch which also writes may read: its record keeps them, for a replay to give again.
MAX_RECORDED_READ_BYTES = 65_536


class PlanningDialect(Dialect):
    """A database whose writes can be planned."""

    @abstractmethod
    def lock_entries(self, connection: Any, write: Write) -> tuple[Mapping[str, Entry], Planner]:
        """Lock every entry of the write and read it; one that is not there is locked as well."""

    @abstractmethod
    def store_plan(self, connection: Any, params: Mapping[str, Any], plan: Plan) -> None:
        """Store entries, record and ledgers; ``params`` has all but the entries."""

    def write_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Plan and apply a write in one transaction, or find its record."""
        try:
            with self.transaction(connection):
                return self._plan_and_store(connection, write, limits)
        except AlreadyRecordedError as found:
            return found.record

    def _plan_and_store(self, connection: Any, write: Write, limits: Limits) -> Record:
        entries, planner = self.lock_entries(connection, write)
        # Only now: the same operation may have held these locks.
        recorded = self.recorded(connection, write.namespace, write.operation_id)
        if recorded is not None:
            raise AlreadyRecordedError(recorded)
        room = None if write.atomic else self._room(connection, write, limits)
        plan = planner.plan(entries, write.steps, room)
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
        used_bytes, _, own_quota = self._locked_ledger(connection, write.namespace)
        whole = self.fetch_one(connection, "lock_ledger", {"namespace": GLOBAL_LEDGER}) or (0, 0, None)
        return Room(
            limits.namespace_bytes if own_quota is None else own_quota,
            used_bytes,
            limits.global_bytes,
            whole[0],
            write.purged,
        )

    def _locked_ledger(self, connection: DriverConnection, namespace: str) -> tuple[int, int, int | None]:
        params = {"namespace": namespace}
        while True:
            ledger: tuple[int, int, int | None] | None = self.fetch_one(connection, "lock_ledger", params)
            if ledger is not None:
                return ledger
            # A recompute may remove it again before it is locked.
            self.run(connection, "create_ledger", params)


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
    records = zip(write.steps, plan.outcomes, strict=True)
    read_bytes = sum(len(str(record).encode()) for step, record in records if step.action == "get")
    if read_bytes > MAX_RECORDED_READ_BYTES:
        raise ReadTooLargeError(MAX_RECORDED_READ_BYTES)
    return batch_record(plan.outcomes)
