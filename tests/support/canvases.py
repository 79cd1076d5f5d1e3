"""Canvases that are run with plain Celery tasks and with kvworker's operations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias

from celery import Celery, chain, chord, group
from celery.canvas import Signature, chunks, xmap, xstarmap
from celery.utils import uuid

from tests.support.processes import wait_until

#: In the text of an error that a task of the host program raises.
CARD_NUMBER: Final = "4111 1111 1111 1111"


class MakesSignature(Protocol):
    def __call__(self, tool: str, arguments: Mapping[str, Any]) -> Signature: ...


@dataclass
class World:
    """One of the two kinds of tasks, as a canvas sees it.

    Attributes:
        app: The host program's application.
        operation: Makes the signature of an operation.
        queue: The queue of operations.
        prefix: The first part of the names of their tasks.
        namespace: The entries of this canvas.
        noted: Ids of tasks that the result of the canvas does not lead to.
        without_result: The number of tasks that store no result.
    """

    app: Celery
    operation: MakesSignature
    queue: str
    prefix: str
    namespace: str
    noted: list[str] = field(default_factory=list)
    without_result: int = 0

    def op(self, tool: str, key: str, **arguments: Any) -> Signature:
        return self.operation(tool, {"namespace": self.namespace, "key": key, **arguments})

    def count(self, key: str = "c", **arguments: Any) -> Signature:
        return self.op("kv_increment", key, **arguments)

    def keep(self, key: str = "k") -> Signature:
        """Store the previous task's result."""
        return self.op("kv_set", key)

    def fail(self) -> Signature:
        """Store a text, and increment it."""
        return chain(self.op("kv_set", "text", value="x"), self.count("text"))

    def own(self, task: str, *args: Any, **options: Any) -> Signature:
        return self.app.signature(f"host.{task}", args=args, queue="host", **options)

    def note(self, signature: Signature) -> Signature:
        """Give a task an id that is known beforehand."""
        self.noted.append(uuid())
        return signature.set(task_id=self.noted[-1])

    def silent(self, signature: Signature) -> Signature:
        """Make a task store no result."""
        self.without_result += 1
        return signature.set(ignore_result=True)


#: Sends the canvas, and returns its result.
Canvas: TypeAlias = Callable[[World], Any]


def _every_operation(w: World) -> Any:
    batch = [{"tool": "kv_set", "key": "a", "value": 1}, {"tool": "kv_get", "key": "nothing"}]
    of_namespace: dict[str, dict[str, Any]] = {
        "kv_set_quota": {"quota_bytes": 1000},
        "kv_batch": {"operations": batch},
        "kv_list_keys": {"include_values": True},
        "kv_usage": {},
        "kv_clear": {},
    }
    return chain(
        w.op("kv_set", "k", value={"a": [1, None]}, ttl_seconds=1000.0),
        w.op("kv_get", "k"),
        w.op("kv_persist", "k"),
        w.op("kv_append", "l", items=[1, {"a": None}], max_items=1),
        w.op("kv_merge", "l", patch={"a": {"b": None}}),
        w.op("kv_get_and_delete", "l"),
        w.op("kv_touch", "missing", ttl_seconds=5.0),
        w.count(delta=3, initial_value=1),
        w.op("kv_delete", "k"),
        w.operation("kv_list_namespaces", {"prefix": w.namespace}),
        *(w.operation(tool, {"namespace": w.namespace, **more}) for tool, more in of_namespace.items()),
    ).apply_async()


def _same_id_twice(w: World) -> Any:
    first, again = w.note(w.count()), w.count()
    first.apply_async().get(timeout=60)
    return again.apply_async(task_id=first.id, link=w.note(w.op("kv_get", "c")))


def _revoked(w: World) -> Any:
    task_id = uuid()
    w.app.control.revoke(task_id, reply=True, timeout=30, limit=2)
    result = w.count().apply_async(task_id=task_id)
    # The first to store the state is the command, which does not know the task.
    wait_until(lambda: w.app.AsyncResult(task_id).name, what="the task's name")
    return result


def _stamped(w: World) -> Any:
    signature = w.count()
    signature.stamp(run="run-1")
    return signature.apply_async()


def _linked(w: World) -> Any:
    signature = w.count()
    signature.link(w.own("shout", "after", immutable=True))
    signature.link(w.keep("linked"))
    return signature.apply_async()


def _from_json(w: World) -> Any:
    return w.app.signature(json.loads(json.dumps(w.own("shout", "x") | w.keep()))).apply_async()


def _errors(w: World) -> Any:
    return group(
        w.op("kv_set", "k", value=1, expected_version=7),
        w.count(delta=2**63 - 1, initial_value=1),
        w.count("once", idempotency_key="once") | w.count("once", delta=2, idempotency_key="once"),
        w.operation("kv_set_quota", {"namespace": f"{w.namespace} small", "quota_bytes": 1})
        | w.operation("kv_set", {"namespace": f"{w.namespace} small", "key": "k", "value": "too long"}),
    ).apply_async()


def _by_hand(w: World, arguments: Mapping[str, Any]) -> Any:
    return w.app.send_task(f"{w.prefix}.kv_increment", kwargs={"namespace": w.namespace, **arguments}, queue=w.queue)


CALLS: Final[dict[str, Canvas]] = {
    "apply_async": lambda w: w.count().apply_async(),
    "delay": lambda w: w.count().delay(),
    "every operation": _every_operation,
    "a clone with other options": lambda w: w.count().clone().set(priority=3).apply_async(headers={"trace": "t-1"}),
    "shadow": lambda w: w.count().apply_async(shadow="another name"),
    "stamps": _stamped,
    "time limits": lambda w: w.count().apply_async(time_limit=50, soft_time_limit=40),
    "countdown": lambda w: w.count().apply_async(countdown=0.1),
    "eta": lambda w: w.count().apply_async(eta=datetime.now(UTC) + timedelta(seconds=0.1)),
    "expired": lambda w: w.count().apply_async(expires=datetime.now(UTC) - timedelta(seconds=5)),
    "revoked": _revoked,
    "ignore_result": lambda w: chain(w.silent(w.count()), w.count()).apply_async(),
    "errors": _errors,
    "an error": lambda w: w.fail().apply_async(),
    "an error without a result": lambda w: chain(w.op("kv_set", "t", value="x"), w.silent(w.count("t"))).apply_async(),
    "an idempotency key": lambda w: chain(*[w.count(idempotency_key="once")] * 2).apply_async(),
    "the same task id twice": _same_id_twice,
    "sent by a task": lambda w: w.own("sends", w.note(w.count())).apply_async(),
    "replace": lambda w: w.own("replaced", w.count()).apply_async(),
    "replace in a chain": lambda w: chain(w.own("replaced", w.count()), w.keep()).apply_async(),
    "replace in a chord": lambda w: chord([w.own("replaced", w.count()), w.count("d")], w.keep()).apply_async(),
}

BY_HAND: Final[dict[str, Canvas]] = {
    "send_task": lambda w: _by_hand(w, {"key": "c"}),
    "send_task with wrong arguments": lambda w: _by_hand(w, {"key": "c", "delta": "1", "colour": "red"}),
    "send_task with a wrong key": lambda w: _by_hand(w, {"key": ""}),
}

CANVASES: Final[dict[str, Canvas]] = {
    "chain": lambda w: chain(w.own("shout", "x"), w.keep(), w.own("shout")).apply_async(),
    "chain of the | operator": lambda w: (w.own("shout", "x") | w.keep() | w.count()).delay(),
    "chain with an immutable task": lambda w: (w.count() | w.own("shout", "x", immutable=True)).apply_async(),
    "chain as JSON": _from_json,
    "chain without a queue": lambda w: (w.count() | w.own("shout", "x", immutable=True).set(queue=None)).apply_async(),
    "chain that fails": lambda w: chain(w.fail(), w.own("shout"), w.keep()).apply_async(),
    "chain whose own task fails": lambda w: chain(w.own("on_error"), w.keep()).apply_async(),
    "chain that keeps a result": lambda w: (w.count() | w.keep()).apply_async(),
    "group": lambda w: group(w.own("shout", "x"), w.count(), w.count("d")).apply_async(),
    "nested group": lambda w: group(w.count(), group(w.own("shout", "x"), w.count("d"))).apply_async(),
    "group of chains": lambda w: group(w.own("shout", "x") | w.keep(), w.count()).apply_async(),
    "group that fails": lambda w: group(w.fail(), w.count()).apply_async(),
    "group of one": lambda w: group(w.count()).apply_async(),
    "group after a task": lambda w: (w.count() | group(w.keep("a"), w.keep("b"))).apply_async(),
    "group with a countdown": lambda w: group(w.count(), w.count("d")).skew(0.05, 0.1).apply_async(),
    "chord": lambda w: chord([w.own("shout", "x"), w.op("kv_get", "c")], w.keep()).apply_async(),
    "chord with an own body": lambda w: chord([w.op("kv_get", "c"), w.own("shout", "x")], w.own("shout")).apply_async(),
    "chord of one": lambda w: chord([w.op("kv_get", "c")], w.keep()).apply_async(),
    "chord in a chain": lambda w: chain(
        w.own("shout", "x"), group(w.keep("a"), w.keep("b")), w.own("shout", "y", immutable=True), w.keep()
    ).apply_async(),
    "chord in a chord": lambda w: chord([chord([w.op("kv_get", "c")] * 2, w.own("shout"))], w.keep()).apply_async(),
    "chord whose header fails": lambda w: chord([w.fail(), w.own("shout", "x")], w.keep()).apply_async(),
    "chord whose own task fails": lambda w: chord(
        [w.own("refuse", CARD_NUMBER), w.count().set(countdown=0.5)], w.keep()
    ).apply_async(),
    "chord whose body fails": lambda w: chord([w.own("shout", "x")], w.fail()).apply_async(),
    "chord with an ignored result": lambda w: chord([w.own("shout", "x"), w.count()], w.silent(w.keep())).apply_async(),
    "link": lambda w: w.count().apply_async(link=w.own("shout", "x", immutable=True)),
    "links": _linked,
    "link to a group": lambda w: w.own("shout", "x").apply_async(link=group(w.keep("a"), w.keep("b"))),
}

MAPS: Final[dict[str, Canvas]] = {
    "map": lambda w: xmap(w.op("kv_get", "k"), ["a", "b"]).apply_async(queue=w.queue),
    "starmap": lambda w: xstarmap(w.op("kv_get", "k"), [(w.namespace, "k")]).apply_async(queue=w.queue),
    "starmap without arguments": lambda w: xstarmap(w.operation("kv_usage", {}), [()]).apply_async(queue=w.queue),
    "chunks": lambda w: chunks(w.op("kv_get", "k"), [(w.namespace, "k")] * 2, 1).group().apply_async(queue=w.queue),
}

ERROR_CALLBACKS: Final[dict[str, Canvas]] = {
    "link_error, an operation": lambda w: w.fail().apply_async(link_error=w.note(w.keep("failed"))),
    "link_error, (task_id)": lambda w: w.fail().apply_async(link_error=w.note(w.own("on_failed_id"))),
    "link_error, (request, exc, traceback)": lambda w: w.fail().apply_async(link_error=w.note(w.own("on_error"))),
    "link_error, immutable": lambda w: w.fail().apply_async(link_error=w.note(w.count("errors"))),
    "link_error of an own task": lambda w: w.own("on_error").apply_async(link_error=w.note(w.keep("failed"))),
    "link_error in a group": lambda w: group(w.fail().on_error(w.note(w.keep("failed"))), w.count()).apply_async(),
    "link_error of a chord": lambda w: chord([w.fail()], w.keep().on_error(w.note(w.keep("failed")))).apply_async(),
    "on_error of a chain": lambda w: w.fail().on_error(w.note(w.own("on_failed_id"))).apply_async(),
}

ALL: Final[Mapping[str, Canvas]] = {**CALLS, **BY_HAND, **CANVASES, **MAPS, **ERROR_CALLBACKS}
