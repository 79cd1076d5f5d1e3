"""Finds durable steps and describes them: their state by the database's clock, and no value unless asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kvworker.cli.output import seconds_text
from kvworker.cli.tool_command import Call
from kvworker.errors import InvalidValueTypeError
from kvworker.model import MAX_PAGE_ROWS, StoredStep, encode_value

STATES: Final = ("unknown", "in_progress", "done", "failed")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: Final = {type(None): "null", bool: "bool", int: "int", float: "float", str: "string", list: "list"}


def find_steps(
    call: Call, namespace: str | None, prefix: str | None, state: str | None, cursor: tuple[str, str] | None
) -> Iterator[dict[str, Any]]:
    """Yield the steps of a namespace, or of all, in the order of their names. It reads page after page as needed.

    Args:
        call: Calls a tool.
        namespace: The namespace, or None for all.
        prefix: Only keys that begin with this.
        state: Only steps in this state.
        cursor: The namespace and the key after which to continue.
    """
    start, key = cursor or (namespace, None)
    if start is not None:
        yield from _steps_of(call, start, prefix, state, key)
    if namespace is None:
        for row in _pages(call, "kv_list_namespaces", "namespaces", {"cursor": start}):
            yield from _steps_of(call, row["namespace"], prefix, state, None)


def read_step(call: Call, namespace: str, key: str) -> dict[str, Any]:
    """Return what is known about one step, with its value. A missing one has the state ``absent``.

    Raises:
        InvalidValueTypeError: The entry is not a durable step.
    """
    name = {"namespace": namespace, "key": key}
    found = call("kv_get", name)
    step = StoredStep.of_value(found["value"]) if found["found"] else None
    return _described(call("kv_step_status", name), step)


def without_value(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same description without the value."""
    return {name: field for name, field in row.items() if name != "value"}


def lease_text(row: Mapping[str, Any]) -> str:
    """Describe the lease of a step that has no outcome."""
    if row["state"] == "unknown":
        return f"over since {row['lease_until']}" if "lease_until" in row else "over"
    return f"another {seconds_text(row['lease_seconds'])}" if "lease_seconds" in row else ""


def outcome_text(row: Mapping[str, Any]) -> str:
    """Describe the shape of the recorded outcome."""
    if "unrecorded" in row:
        return f"not recorded: {row['unrecorded']}"
    return f"{row['value_type']}, {row['value_bytes']:,} bytes" if "value_type" in row else ""


def kept_text(row: Mapping[str, Any]) -> str:
    """Describe for how long an outcome is kept."""
    if row["state"] not in {"done", "failed"}:
        return ""
    return seconds_text(row["ttl_seconds"]) if "ttl_seconds" in row else "until deleted"


def _pages(call: Call, tool: str, field: str, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] = {"next_cursor": arguments["cursor"]}
    while True:
        page = call(tool, {**arguments, "limit": MAX_PAGE_ROWS, "cursor": page["next_cursor"]})
        yield from page[field]
        if page["next_cursor"] is None:
            return


def _steps_of(
    call: Call, namespace: str, prefix: str | None, state: str | None, after: str | None
) -> Iterator[dict[str, Any]]:
    arguments = {"namespace": namespace, "prefix": prefix, "include_values": True, "cursor": after}
    for entry in _pages(call, "kv_list_keys", "entries", arguments):
        step = StoredStep.of_value(entry["value"])
        if step is None or state not in {None, *_possible_states(step)}:
            continue
        row = _row(call, namespace, entry, step)
        if row["state"] == state or (state is None and row["state"] != "absent"):
            yield row


def _possible_states(step: StoredStep) -> tuple[str, ...]:
    # A reserved step may have ended since the page was read.
    return STATES if step.state == "reserved" else (step.state,)


def _row(call: Call, namespace: str, entry: Mapping[str, Any], step: StoredStep) -> dict[str, Any]:
    name = {"namespace": namespace, "key": entry["key"]}
    if step.state == "reserved":
        # Only the database's clock tells whether the lease runs.
        try:
            return _described(call("kv_step_status", name), step)
        except InvalidValueTypeError:  # another value has replaced it
            return {**name, "state": "absent"}
    row: dict[str, Any] = {**name, "state": step.state, "token": step.token}
    row |= {"value": step.value} if step.unrecorded is None else {"unrecorded": step.unrecorded}
    return _described(row | ({"ttl_seconds": entry["ttl_seconds"]} if "ttl_seconds" in entry else {}), step)


def _described(status: Mapping[str, Any], step: StoredStep | None) -> dict[str, Any]:
    """Add the end of a lease that is over, and the shape of a value."""
    row = dict(status)
    if row["state"] == "unknown" and step is not None and step.token == row["token"]:
        row |= _lease_end(step.lease_until)
    if "value" in row:
        value = row["value"]
        row |= {"value_type": _TYPES.get(type(value), "object"), "value_bytes": len(encode_value(value).encode())}
    return row


def _lease_end(lease_until: int) -> dict[str, str]:
    try:
        return {"lease_until": (_EPOCH + timedelta(microseconds=lease_until)).isoformat(timespec="seconds")}
    except OverflowError:  # anybody may write an entry that looks like a step
        return {}
