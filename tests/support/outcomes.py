"""Collects the stored results of a canvas, in a form in which two runs of it are equal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from celery import Celery
from redis import Redis

#: The stored result of a task, and the answers of its ``AsyncResult``.
Record: TypeAlias = dict[str, Any]

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOLD = ("state", "traceback", "name", "args", "kwargs", "worker", "retries", "queue")


@dataclass
class Names:
    """Replaces what differs between any two runs: ids by numbers in the order of their appearance.

    Attributes:
        known: Other names of one run, by those of both.
    """

    known: Mapping[str, str]
    _ids: dict[str, str] = field(default_factory=dict)

    def shared(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._field(name, each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.shared(each) for each in value]
        if not isinstance(value, str):
            return value
        return _ID.sub(self._label, self.known.get(value, value)).replace("stock.kv", "kvworker.kv")

    def _label(self, match: re.Match[str]) -> str:
        return self._ids.setdefault(match[0], f"id {len(self._ids) + 1}")

    def _field(self, name: str, value: Any) -> Any:
        if name == "version" and isinstance(value, int):
            return "a version"
        if name == "ttl_seconds" and isinstance(value, float) and not value.is_integer():
            return "some seconds"
        if name == "date_done" and value is not None:
            assert abs(datetime.now(UTC) - datetime.fromisoformat(value)) < timedelta(minutes=30), value
            return "a moment ago"
        if name == "traceback" and value is not None:
            lines = value.strip().splitlines()
            return [lines[0], self.shared(lines[-1])]
        return self.shared(value)


@dataclass
class Sent:
    """A canvas that was sent.

    Attributes:
        app: The application that reads the results.
        redis: The server that stores them.
        result: The result of the canvas.
        noted: The ids of further tasks, to which the result does not lead.
        without_result: The number of tasks that store no result.
        known: Names of this run, by those of all runs.
    """

    app: Celery
    redis: Redis
    result: Any
    noted: Sequence[str]
    without_result: int
    known: Mapping[str, str]

    def is_done(self) -> bool:
        """Tell whether every task but those without a result has stored it."""
        return list(self.stored().values()).count(None) == self.without_result

    def records(self) -> list[Record]:
        """Collect a record of each task."""
        names, stored = Names(self.known), self.stored()
        names.shared(list(stored))
        groups = {task_id: each["group_id"] for task_id, each in stored.items() if each and "group_id" in each}
        for each in stored.values():
            # The last task of a group to end sends the body of its chord, and any may be the last.
            if each and each.get("parent_id") in groups:
                each["parent_id"] = f"in {groups[each['parent_id']]}"
        return [
            names.shared({"id": task_id, "stored": each, "told": told_by(self.app, task_id)})
            for task_id, each in stored.items()
        ]

    def stored(self) -> dict[str, Record | None]:
        """Read the stored result of each task, by its id; those that the canvas waits for are in front."""
        waiting = list(dict.fromkeys([*_tasks_in(self.result.as_tuple()), *self.noted]))
        found: dict[str, Record | None] = {}
        for task_id in waiting:
            text: Any = self.redis.get(f"celery-task-meta-{task_id}")
            found[task_id] = record = None if text is None else json.loads(text)
            for child in (record or {}).get("children") or ():
                waiting += [each for each in _tasks_in(child) if each not in waiting]
        return found


def told_by(app: Celery, task_id: str) -> Record:
    """Collect what an application's ``AsyncResult`` tells about a task."""
    result = app.AsyncResult(task_id)
    value = result.result
    if isinstance(value, BaseException):
        value = [type(value).__name__, str(value), list(value.args)]
    return {
        **{name: getattr(result, name) for name in _TOLD},
        "result": value,
        "answers": [result.ready(), result.successful(), result.failed()],
        "date_done": result.date_done and result.date_done.isoformat(),
        "children": result.children and [child.as_tuple() for child in result.children],
    }


def _tasks_in(result: Any) -> Iterator[str]:
    """Yield the ids of the tasks in a result's tuple, those that a group waits for and those before it included."""
    (own_id, parent), children = result
    if children is None:
        yield own_id
    for each in (*(children or ()), *((parent,) if parent else ())):
        yield from _tasks_in(each)
