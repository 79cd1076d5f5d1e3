"""Every canvas primitive with signatures of the user's application and of the store together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from kvworker import KeyValueStore
from tests.support.processes import ValkeyNode, wait_until

WAIT_SECONDS = 60

#: Makes a canvas from functions that make the user's signature, an increment, and a set of the previous result.
Canvas = Callable[[Callable[..., Any], Callable[[str], Any], Callable[[str], Any]], Any]


@pytest.fixture(params=["--pool=prefork", "--pool=threads"])
def worker_arguments(request: pytest.FixtureRequest) -> list[str]:
    return [request.param, "--concurrency=2"]


CANVASES: dict[str, tuple[Canvas, Any]] = {
    "signature": (lambda _own, count, _keep: count("a"), 1),
    "group": (lambda own, count, _keep: group(own("x"), count("a")), ["X", 1]),
    "group, ours first": (lambda own, count, _keep: group(count("a"), own("x"), count("b")), [1, "X", 1]),
    "nested group": (lambda own, count, _keep: group(own("x"), group(count("a"), own("y"))), ["X", 1, "Y"]),
    "group of chains": (lambda own, count, keep: group(own("x") | keep("k"), count("a")), ["X", 1]),
    "chain": (lambda own, _count, keep: own("x") | keep("k"), "X"),
    "chain that ends with the user's task": (
        lambda own, count, _keep: chain(count("a"), own("x", immutable=True)),
        "X",
    ),
    "chord with our body": (lambda own, count, keep: chord([own("x"), count("a")], keep("k")), ["X", 1]),
    "chord with the user's body": (
        lambda own, count, _keep: chord([count("a"), own("x")], own("y", immutable=True)),
        "Y",
    ),
    "chain of a group": (lambda own, count, keep: group(own("x"), count("a")) | keep("k"), ["X", 1]),
}


def _plain(result: Any) -> Any:
    """Reduce the results of operations to their values."""
    if isinstance(result, list):
        return [_plain(each) for each in result]
    return _plain(result["value"]) if isinstance(result, dict) else result


@pytest.mark.usefixtures("user_worker", "worker_node")
def test_every_primitive(store: KeyValueStore, user_app: Celery) -> None:
    def own(text: str, *, immutable: bool = False) -> Any:
        return user_app.signature("user.shout", args=(text,), queue="user", immutable=immutable)

    outcomes, expected = {}, {}
    for name, (canvas, result) in CANVASES.items():

        def count(key: str, name: str = name) -> Any:
            return store.signature("kv_increment", {"namespace": name, "key": key})

        def keep(key: str, name: str = name) -> Any:
            return store.signature("kv_set", {"namespace": name, "key": key})

        outcomes[name] = _plain(canvas(own, count, keep).apply_async().get(timeout=WAIT_SECONDS))
        expected[name] = result
    assert outcomes == expected


def test_an_application_with_other_results_or_another_broker_is_not_used(store: KeyValueStore) -> None:
    broker = store.settings.queue.broker_url
    for host in (
        Celery("a", broker=broker, backend=broker[:-1] + "5"),
        Celery("b", broker=broker, backend="rpc://"),
        Celery("c", broker="redis://127.0.0.1:1/0", backend=broker),
        Celery("d", broker=broker, backend="nonsense://"),
    ):
        assert store.signature("kv_get", {"namespace": "n", "key": "k"}).app is not host
        host.close()


@pytest.mark.usefixtures("worker_node")
def test_the_same_task_id_published_twice_is_one_operation(store: KeyValueStore, user_app: Celery) -> None:
    count = store.signature("kv_increment", {"namespace": "n", "key": "c"})
    assert count.apply_async(task_id="same").get(timeout=WAIT_SECONDS)["replayed"] is False
    count.apply_async(task_id="same")
    wait_until(lambda: user_app.AsyncResult("same").result["replayed"], what="the second result")
    assert store.get("n", "c").value == 1


@pytest.mark.usefixtures("user_worker", "worker_node")
def test_an_error_callback_of_the_users_application_gets_the_task_id(
    store: KeyValueStore, user_app: Celery, valkey_node: ValkeyNode
) -> None:
    store.set("n", "text", "not a number", timeout=WAIT_SECONDS)
    errback = user_app.signature("user.shout", queue="user", task_id="called-back")
    failing = store.signature("kv_increment", {"namespace": "n", "key": "text"})
    failing.apply_async(task_id="failing-task", link_error=errback)
    assert user_app.AsyncResult("called-back").get(timeout=WAIT_SECONDS) == "FAILING-TASK"
