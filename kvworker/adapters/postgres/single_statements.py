"""The statements of which one applies a write alone, and their parameters."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from kvworker.adapters.sql.planned_writes import common_params
from kvworker.adapters.sql.statements import StatementName
from kvworker.adapters.sql.write import Limits, Write
from kvworker.model import MAX_KEPT_BYTES, AppendStep, RateLimitStep, Step


class Statements(NamedTuple):
    """The statements for a kind of write.

    Attributes:
        charging: If its ledger changes.
        charging_globally: If the store has a global ledger as well.
        in_place: If the entry keeps its size; None if there is no such statement.
    """

    charging: StatementName
    charging_globally: StatementName
    in_place: StatementName | None = None


_SET: Final = Statements("set_entry", "set_entry_globally", "set_in_place")
_SET_IF_VERSION: Final = Statements("set_entry_if_version", "set_entry_if_version_globally", "set_in_place_if_version")
_SET_UNLESS: Final = Statements("set_entry_unless", "set_entry_unless_globally")
_DELETE: Final = Statements("delete_entry", "delete_entry_globally")
_DELETE_IF_VERSION: Final = Statements("delete_entry_if_version", "delete_entry_if_version_globally")
_INCREMENT: Final = Statements("increment_entry", "increment_entry_globally", "increment_in_place")
_APPEND: Final = Statements("append_items", "append_items_globally")
_TAKE: Final = Statements("take_entry", "take_entry_globally")


def may_apply_alone(write: Write) -> bool:
    """Return whether one statement will most likely apply the write. Without a row from it, a plan has to."""
    if write.is_plain:
        return True
    if write.action == "append":
        step = cast(AppendStep, write.steps[0])
        return step.max_items is None or len(step.items) <= step.max_items
    return write.action == "get_and_delete"


def statements_of(write: Write) -> Statements:
    """Return the statements of a write that one of them can apply."""
    (step,) = write.steps
    if step.action == "append":
        return _APPEND
    if step.action == "get_and_delete":
        return _TAKE
    if step.action == "increment":
        return _INCREMENT
    if step.action == "delete":
        return _DELETE if step.expected_version is None else _DELETE_IF_VERSION
    if step.expected_version is not None:
        return _SET_IF_VERSION
    return _SET_UNLESS if step.is_conditional else _SET


def params_of(write: Write, limits: Limits) -> dict[str, Any]:
    """Return the parameters of these statements."""
    (step,) = write.steps
    # Numbers go as text: psycopg would send integers of different sizes as different types, and prepare for each.
    params = {
        **common_params(write, limits),
        "key": step.key,
        "text": step.text,
        "ttl_seconds": step.ttl_seconds,
        "delta": str(step.delta),
    }
    if isinstance(step, AppendStep):
        most = None if step.max_items is None else str(step.max_items - len(step.items))
        return {**params, "most": most}
    if step.action == "get_and_delete":
        return {**params, "largest": str(MAX_KEPT_BYTES)}
    return {**params, **_condition(step)} if step.is_conditional else params


def rate_limit_params(write: Write, limits: Limits) -> dict[str, Any] | None:
    """Return the parameters of the statement that applies a rate limit, or None if the write is none."""
    step = write.steps[0] if write.action == "rate_limit" else None
    if not isinstance(step, RateLimitStep):
        return None
    numbers = {"unit": step.unit, "capacity": step.capacity, "cost": step.cost}
    return {**common_params(write, limits), "key": step.key, **{name: str(each) for name, each in numbers.items()}}


def _condition(step: Step) -> dict[str, Any]:
    return {
        "expected_version": str(step.expected_version),
        "if_absent": step.if_absent,
        "keep_ttl": step.keep_ttl,
    }
