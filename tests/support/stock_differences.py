"""The ways in which an operation differs from a plain Celery task of the same body, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from kvworker.messaging.wire import PAYLOAD_VERSION, described
from kvworker.tools import TOOLS
from tests.support.canvases import ALL, BY_HAND, MAPS
from tests.support.outcomes import Record


@dataclass(frozen=True)
class Difference:
    """An intended difference.

    Attributes:
        reason: Why it is intended.
        documented: Words about it on the page for Celery's users.
        canvases: The canvases that show it.
        change: Changes the records of plain tasks to those of operations.
    """

    reason: str
    documented: str
    canvases: frozenset[str]
    change: Callable[[list[Record]], None]


def with_differences(canvas: str, records: list[Record]) -> list[Record]:
    """Return what operations leave, given what plain tasks leave.

    Raises:
        AssertionError: A difference that this canvas should show changes nothing.
    """
    for difference in DIFFERENCES:
        if canvas in difference.canvases:
            before = deepcopy(records)
            difference.change(records)
            assert records != before, difference.documented
    return records


def _dicts_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from _dicts_in(each)


def _name_of(part: Mapping[str, Any]) -> str:
    name = part.get("name") or part.get("task")
    return name.removeprefix("kvworker.") if isinstance(name, str) and name.startswith("kvworker.") else ""


def _add_version(records: list[Record]) -> None:
    for part in _dicts_in(records):
        if _name_of(part) and isinstance(part.get("kwargs"), dict):
            part["kwargs"]["v"] = PAYLOAD_VERSION


def _add_options(records: list[Record]) -> None:
    for part in _dicts_in(records):
        if (tool := _name_of(part)) and isinstance(part.get("options"), dict):
            part["options"] |= {"serializer": "json", "kwargsrepr": described(TOOLS[tool], part["kwargs"])}


def _keep_what_is_stable(records: list[Record]) -> None:
    for part in _dicts_in(records):
        if isinstance(part.get("value"), dict | list):
            for kept in _dicts_in(part["value"]):
                kept.pop("replayed", None)


def _replay(records: list[Record]) -> None:
    twice, link = records
    for part in twice["stored"], twice["told"]:
        part["result"]["replayed"] = True
        part["children"] = [[[link["id"], None], None]]
    for part in link["stored"], link["told"]:
        part["result"]["value"] = 1


def _refuse_a_map(records: list[Record]) -> None:
    for record in records:
        tool = _name_of(record["stored"]["kwargs"]["task"])
        message = (
            f"{tool} does not run inside another task, as in a map, a starmap or chunks: make a group of signatures,"
            " or call kv_batch"
        )
        traceback = ["Traceback (most recent call last):", f"kvworker.errors.InvalidRequestError: {message}"]
        error = {"exc_type": "InvalidRequestError", "exc_message": [message], "exc_module": "kvworker.errors"}
        record["stored"] |= {"status": "FAILURE", "result": error, "traceback": traceback}
        seen = ["InvalidRequestError", message, [message]]
        record["told"] |= {"state": "FAILURE", "result": seen, "traceback": traceback, "answers": [True, False, True]}


def _send_the_callback(records: list[Record]) -> None:
    failed, callback = records[0]["id"], records[-1]
    message = "on_error() missing 2 required positional arguments: 'exc' and 'traceback'"
    traceback = ["Traceback (most recent call last):", f"TypeError: {message}"]
    common = {
        "name": "host.on_error",
        "args": [failed],
        "kwargs": {},
        "queue": "host",
        "worker": "worker",
        "retries": 0,
    }
    error = {"exc_type": "TypeError", "exc_message": [message], "exc_module": "builtins"}
    # Celery sends callbacks as a group.
    group_id = f"id {len(records) + 1}"
    relatives = {"parent_id": failed, "group_id": group_id, "children": []}
    callback["stored"] |= {**common, **relatives, "status": "FAILURE", "result": error, "traceback": traceback}
    seen = {"result": ["TypeError", message, [message]], "answers": [True, False, True], "children": []}
    callback["told"] |= {**common, **seen, "state": "FAILURE", "traceback": traceback}


def _lose_the_queue(records: list[Record]) -> None:
    last = records[0]
    error = {"exc_type": "NotRegistered", "exc_message": ["host.shout"], "exc_module": "celery.exceptions"}
    moments = {"traceback": None, "children": None, "date_done": "a moment ago"}
    last["stored"] = {"status": "FAILURE", "result": error, "task_id": last["id"], **moments}
    told = {"state": "FAILURE", "result": ["NotRegistered", "'host.shout'", ["host.shout"]]}
    last["told"] = {**dict.fromkeys(last["told"]), **moments, **told, "answers": [True, False, True]}


DIFFERENCES: Final = (
    Difference(
        reason="A worker of another release must know how to read the message.",
        documented="Its `kwargs` also hold `v`, the version of the message",
        canvases=frozenset(ALL.keys() - BY_HAND.keys()),
        change=_add_version,
    ),
    Difference(
        reason="The signature must not log the value, and must not take the host program's serializer.",
        documented="Its options also hold `serializer` and `kwargsrepr`",
        canvases=frozenset({"sent by a task", *MAPS}),
        change=_add_options,
    ),
    Difference(
        reason="A chain that is run again must store the same value, or its idempotency key would conflict.",
        documented="without `replayed` and `ttl_seconds`",
        canvases=frozenset(
            {"replace in a chain", "replace in a chord", "chain that keeps a result", "group after a task", "links"}
        ),
        change=_keep_what_is_stable,
    ),
    Difference(
        reason="The task id is the operation id, so that a message that is delivered again is applied once.",
        documented="The same task id, published twice, is one operation",
        canvases=frozenset({"the same task id twice"}),
        change=_replay,
    ),
    Difference(
        reason="An operation needs its own id, and its arguments by name.",
        documented="`map`, `starmap` and `chunks` fail with an `InvalidRequestError`",
        canvases=frozenset(MAPS),
        change=_refuse_a_map,
    ),
    Difference(
        reason="The worker of operations does not know the host program's routes.",
        documented="Name the queue, or the task fails as `NotRegistered`",
        canvases=frozenset({"chain without a queue"}),
        change=_lose_the_queue,
    ),
    Difference(
        reason="Celery can only call a function that the failed task's worker has imported.",
        documented="is sent as a task, with the id of the failed task alone",
        canvases=frozenset({"link_error, (request, exc, traceback)"}),
        change=_send_the_callback,
    ),
)
