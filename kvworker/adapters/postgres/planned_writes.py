"""The statements of a planned write, which go to PostgreSQL in two round trips: one locks, and the other stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvworker.adapters.postgres.pipelining import Call
from kvworker.adapters.sql.dialect import found_record, record_names
from kvworker.adapters.sql.planned_writes import Locked
from kvworker.adapters.sql.planning import Entry, Plan, Planner
from kvworker.adapters.sql.write import Record, Write

#: Marks the row of an entry beside those of records.
_LIVE: Final = "live"


def locking_calls(statements: Mapping[str, str], write: Write, idle_milliseconds: int) -> list[Call]:
    """Return the statements that begin a transaction, lock and read every entry, and then look for the record.

    A missing entry is created empty, so that it is locked as well. If the process freezes, the database ends the
    transaction after ``idle_milliseconds``.
    """
    names = {"namespace": write.namespace, "keys": write.keys, "read_keys": write.read_keys}
    return [
        (statements["begin"], {}),
        (statements["lock_entries"], {**names, "idle_milliseconds": str(idle_milliseconds)}),
        (statements["find_records"], record_names(write.namespace, write.operation_id)),
    ]


def read_locked(write: Write, rows: Sequence[Sequence[Any]], records: Sequence[Sequence[Any]]) -> Locked:
    """Make the locked entries from the rows of the last two of these statements."""
    now = max(row[-1] for row in rows)
    entries = {key: Entry(*state) for key, *state, _ in rows}
    return Locked(entries, Planner(write.namespace, now, int(now * 1_000_000)), found_record(records))


def plan_params(params: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the parameters of the statement that stores a plan. A value that stays is not sent."""
    changed = plan.changed
    columns = {
        "keys": list(changed),
        "texts": ["" if e.text == plan.before[key].text else e.text for key, e in changed.items()],
        "expiries": ["" if e.expires_at is None else repr(e.expires_at) for e in changed.values()],
        "sizes": [str(e.size_bytes) for e in changed.values()],
        "versions": [str(e.version) for e in changed.values()],
        "reserves": [str(e.reserve) for e in changed.values()],
        "removed_keys": plan.removed,
    }
    grown = {name: str(params[name]) for name in ("grown_bytes", "grown_entries", "grown_records")}
    return {**params, **grown, **columns}


def record_or_refuse(write: Write, rows: Sequence[Sequence[Any]]) -> Record | None:
    """Return the record of a write of one step that did not apply, or None if it may apply now.

    Args:
        write: The write.
        rows: The rows of the statement that explains it.

    Raises:
        StepRefusedError: the step's condition does not hold.
    """
    recorded = found_record([row for row in rows if row[0] != _LIVE])
    if recorded is None:
        versions = [row[2] for row in rows if row[0] == _LIVE]
        entry = Entry(size_bytes=1, version=versions[0]) if versions else Entry()
        Planner(write.namespace, 0.0, 0).plan({write.steps[0].key: entry}, write.steps)
    return recorded
