"""The results that operation records keep, as text, and the conversion to the caller's results.

A record keeps only what the request does not say. A step's record is, by its action::

    set, touch, persist   "EXPIRY vVERSION", without EXPIRY (seconds since 1970) if there is none; "" is a miss
    increment             the same, preceded by "VALUE "
    delete                "true" or "false"
    get                   null: a record holds no value, so a replay reads again
    computed steps        what ``ComputedStep.record_of`` keeps of the answer of ``ComputedStep.change``, as JSON;
                          only that of get_and_delete holds a value

Records from before entries had versions have no vVERSION. A batch's record is a JSON array of its steps' records, with
an object (error, shared, args) for each step that was refused individually. Until its first caller is answered, and in
records from before reads were left out, a get has a JSON array instead of null (text, expiry, version; "" is a miss).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvworker.adapters.sql.write import Record
from kvworker.errors import KVStoreError, OperationFailedError, rebuild_error
from kvworker.model import (
    BatchResult,
    ComputedStep,
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    SetResult,
    Step,
    StepMoment,
    StepResult,
    TouchResult,
    decode_value,
)


def written_record(expires_at: float | None, version: int) -> str:
    """Make the record of a written entry."""
    return f"v{version}" if expires_at is None else f"{expires_at!r} v{version}"


def computed_record(answer: JSONValue) -> str:
    """Make the record of a computed step."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def read_entry_text(text: str | None, expires_at: float | None, version: int) -> str:
    """Make the text of an entry that a batch read."""
    return json.dumps([text, expires_at, version], ensure_ascii=False)


def batch_record(namespace: str, steps: Sequence[Step], outcomes: Sequence[str | KVStoreError]) -> str:
    """Make the record of a batch from its steps' records and errors, without what the batch read."""
    return _batch_text(namespace, steps, [_kept(s, o) for s, o in zip(steps, outcomes, strict=True)])


def step_record(step: Step, outcome: str) -> str:
    """Return what the record of a step keeps of its outcome."""
    return step.record_of(outcome) if isinstance(step, ComputedStep) else outcome


def _kept(step: Step, outcome: str | KVStoreError) -> str | KVStoreError | None:
    if step.action == "get":
        return None
    return outcome if isinstance(outcome, KVStoreError) else step_record(step, outcome)


def batch_answer(namespace: str, steps: Sequence[Step], outcomes: Sequence[str | KVStoreError]) -> str:
    """Make the same with what the batch read, for the result of the batch that is applied now."""
    return _batch_text(namespace, steps, outcomes)


def _batch_text(namespace: str, steps: Sequence[Step], outcomes: Sequence[str | KVStoreError | None]) -> str:
    items = [
        _error_item((namespace, step.key), outcome) if isinstance(outcome, KVStoreError) else outcome
        for step, outcome in zip(steps, outcomes, strict=True)
    ]
    return json.dumps(items, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ResultContext:
    """The database's clock when the result is made (seconds since 1970), and whether the operation was replayed."""

    now: float
    replayed: bool

    def remaining_seconds(self, expires_at: float | None) -> float | None:
        """Return the seconds until an instant, at least 0; None for None."""
        return None if expires_at is None else max(0.0, expires_at - self.now)


def step_result(namespace: str, step: Step, record: str, context: ResultContext) -> StepResult:
    """Make the result of a step from its record."""
    name = (namespace, step.key)
    if isinstance(step, ComputedStep):
        return step.result(StepMoment(namespace, context.now, 0), json.loads(record), replayed=context.replayed)
    if step.action == "get":
        return found_result(name, json.loads(record), context) if record else GetResult(*name, found=False)
    if step.action == "delete":
        return DeleteResult(*name, deleted=record == "true", replayed=context.replayed)
    value, expires_at, version = _parse(step, record)
    ttl_seconds = context.remaining_seconds(expires_at)
    if ttl_seconds is not None and step.ttl_seconds is not None and not context.replayed:
        # The TTL that the caller asked for, not the remainder a moment later.
        ttl_seconds = step.ttl_seconds
    if step.action == "increment":
        return IncrementResult(*name, value, ttl_seconds, context.replayed, version)
    if step.action == "set":
        return SetResult(*name, step.value, ttl_seconds, context.replayed, version)
    return TouchResult(*name, bool(record), ttl_seconds, context.replayed, version)


def batch_result(
    namespace: str, steps: Sequence[Step], record: Record, read_again: Callable[[], Sequence[GetResult]]
) -> BatchResult:
    """Make the result of a batch from its record.

    Args:
        namespace: The batch's namespace.
        steps: The batch's steps.
        record: The record of the batch, which may have been applied before.
        read_again: Reads what the batch reads, for a record that holds none of it.
    """
    context = ResultContext(record.now, record.replayed)
    items = json.loads(record.result)
    reads = iter(read_again() if None in items else ())
    results = tuple(
        next(reads) if item is None else _step_outcome(namespace, step, item, context)
        for step, item in zip(steps, items, strict=True)
    )
    return BatchResult(namespace, results, record.replayed, tools_of(steps))


def _step_outcome(
    namespace: str, step: Step, item: str | dict[str, Any], context: ResultContext
) -> StepResult | KVStoreError:
    if isinstance(item, str):
        return step_result(namespace, step, item, context)
    return _error((namespace, step.key), item)


def tools_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the tool of each step, by which a ``BatchResult`` reads its results."""
    return tuple(f"kv_{step.action}" for step in steps)


def entry_result(namespace: str, key: str, row: Sequence[Any] | None) -> GetResult:
    """Make the result of a read from a row (text, remaining seconds, version), or from None for a miss."""
    if row is None:
        return GetResult(namespace, key, found=False)
    text, ttl_seconds, version = row
    remaining = None if ttl_seconds is None else max(0.0, ttl_seconds)
    return GetResult(namespace, key, found=True, value=decode_value(text), ttl_seconds=remaining, version=version)


def found_result(name: tuple[str, str], state: Sequence[Any], context: ResultContext) -> GetResult:
    """Make the result of a read from an entry's state: its text, its expiry and its version."""
    text, expires_at, version = state
    remaining = context.remaining_seconds(expires_at)
    return GetResult(*name, found=True, value=decode_value(text), ttl_seconds=remaining, version=version)


def _parse(step: Step, record: str) -> tuple[int, float | None, int | None]:
    parts = record.split()
    version = int(parts.pop()[1:]) if parts and parts[-1].startswith("v") else None
    value = int(parts.pop(0)) if step.action == "increment" else 0
    return value, float(parts[0]) if parts else None, version


def _error_item(name: tuple[str, str], error: KVStoreError) -> dict[str, Any]:
    # Most errors' arguments begin with namespace and key, which the request says already.
    shared = next((count for count in (2, 1) if error.args[:count] == name[:count]), 0)
    return {"error": type(error).__name__, "shared": shared, "args": error.args[shared:]}


def _error(name: tuple[str, str], item: dict[str, Any]) -> KVStoreError:
    args = [*name[: item["shared"]], *item["args"]]
    return rebuild_error(item["error"], args) or OperationFailedError("", item["error"])
