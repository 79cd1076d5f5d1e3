"""The caller's view: plain function calls through a real broker, worker and database."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from langchain_core.tools import tool
from pytest_celery import CeleryTestSetup

from kvworker import (
    AsyncKeyValueStore,
    IdempotencyConflictError,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    KeyValueStore,
    Settings,
    ValueSerializationError,
)
from kvworker.integrations.langchain import once_tool
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

pytestmark = pytest.mark.usefixtures("celery_setup")

HOSTILE_VALUES: list[Any] = [
    None,
    {},
    "\u0000",
    2**70,
    -0.5,
    {"z": 1, "a": [True, None, {"deep": "ü"}]},
    {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},
    [{"__type__": "bytes", "__value__": "x"}],
    {"__type__": "no-such-type", "__value__": {"__type__": "uuid", "__value__": "nonsense"}},
    '{"__type__": "decimal", "__value__": "1"}',
]


def test_pytest_celery_sees_the_whole_setup(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready()
    assert len(celery_setup) == 3


def test_the_four_operations(store: KeyValueStore) -> None:
    assert not store.get("session", "token").found
    written = store.set("session", "token", {"scopes": ["a"]}, ttl_seconds=60)
    assert (written.value, written.ttl_seconds, written.replayed) == ({"scopes": ["a"]}, 60, False)
    read = store.get("session", "token")
    assert read.found
    assert read.value == {"scopes": ["a"]}
    assert read.ttl_seconds is not None
    assert 50 < read.ttl_seconds <= 60
    assert store.increment("metrics", "calls", delta=2, initial_value=40).value == 42
    assert store.delete("session", "token").deleted
    assert not store.delete("session", "token").deleted


def test_a_value_comes_back_unchanged(store: KeyValueStore) -> None:
    for value in HOSTILE_VALUES:
        assert repr(store.set("n", "k", value).value) == repr(value)
        assert repr(store.get("n", "k").value) == repr(value)


def test_tools_by_name(store: KeyValueStore) -> None:
    assert store.call("kv_get", {"namespace": "n", "key": "k"}) == {"namespace": "n", "key": "k", "found": False}
    written = store.call("kv_set", {"namespace": "n", "key": "k", "value": None, "ttl_seconds": None})
    version = store.get("n", "k").version
    assert written == {"namespace": "n", "key": "k", "value": None, "replayed": False, "version": version}
    assert store.call("kv_increment", {"namespace": "n", "key": "c", "delta": None})["value"] == 1
    assert store.call("kv_delete", {"namespace": "n", "key": "k"})["deleted"] is True


def test_an_operation_id_is_applied_once(store: KeyValueStore) -> None:
    first = store.increment("n", "c", idempotency_key="run-7/step-3")
    again = store.increment("n", "c", idempotency_key="run-7/step-3")
    assert (first.value, first.replayed) == (1, False)
    assert (again.value, again.replayed) == (1, True)
    with pytest.raises(IdempotencyConflictError) as caught:
        store.increment("n", "c", delta=2, idempotency_key="run-7/step-3")
    assert caught.value.operation_id == "run-7/step-3"
    assert store.get("n", "c").value == 1


def test_bad_input_is_refused_before_anything_is_sent(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    with valkey_node.client() as client:
        client.config_resetstat()
    with pytest.raises(InvalidKeyError):
        store.get("", "k")
    with pytest.raises(InvalidTTLError):
        store.set("n", "k", 1, ttl_seconds=True)
    with pytest.raises(ValueSerializationError):
        store.set("n", "k", (1, 2))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="takes no argument 'nmespace'"):
        store.call("kv_get", {"nmespace": "n", "key": "k"})
    with pytest.raises(InvalidRequestError, match="needs the argument 'key'"):
        store.call("kv_get", {"namespace": "n"})
    with pytest.raises(InvalidRequestError, match="unknown tool 'kv_got'"):
        store.call("kv_got", {})
    with pytest.raises(InvalidRequestError, match="timeout"):
        store.get("n", "k", timeout=0)
    with valkey_node.client() as client:
        assert "cmdstat_lpush" not in client.info("commandstats")


def test_submitted_operations_overlap(store: KeyValueStore) -> None:
    pending = [store.submit("kv_increment", {"namespace": "n", "key": f"k{i % 3}"}) for i in range(60)]
    assert len({reply.operation_id for reply in pending}) == 60
    for reply in pending:
        reply.result()
    assert [store.get("n", f"k{i}").value for i in range(3)] == [20, 20, 20]


def test_many_threads_share_one_store(store: KeyValueStore) -> None:
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda _: store.increment("n", "c", timeout=30).value, range(320)))
    assert sorted(results) == list(range(1, 321))


def test_results_are_forgotten_once_read(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    for number in range(20):
        store.set("n", f"k{number}", number)
    store.set("n", "text", "x")
    with pytest.raises(InvalidValueTypeError):
        store.increment("n", "text")
    with valkey_node.client() as client:
        wait_until(lambda: not list(client.scan_iter("celery-task-meta-*")), what="results forgotten")
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="messages acknowledged")


def test_nothing_is_published_but_results(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    store.get("n", "k")
    with valkey_node.client() as client:
        client.config_resetstat()
        for _ in range(10):
            store.get("n", "k")
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="messages acknowledged")
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    # No events, gossip, heartbeats or mingling: one message in and one result out for each operation.
    assert (calls["cmdstat_lpush"], calls["cmdstat_publish"]) == (10, 10)


def test_coroutines(settings: Settings) -> None:
    runs: list[int] = []

    @tool
    async def total(prices: list[int]) -> str:
        """Add prices."""
        runs.append(1)
        return f"{sum(prices)} (run {len(runs)})"

    async def use() -> list[Any]:
        async with AsyncKeyValueStore(settings) as store:
            await store.set("n", "k", {"a": 1}, ttl_seconds=60)
            assert (await store.get("n", "k")).value == {"a": 1}
            pending = await store.submit("kv_increment", {"namespace": "n", "key": "c"})
            await pending.result()
            counts = await asyncio.gather(*(store.increment("n", "c") for _ in range(50)))
            with pytest.raises(InvalidValueTypeError):
                await store.increment("n", "k")
            assert (await store.call("kv_delete", {"namespace": "n", "key": "k"}))["deleted"]
            call = {"type": "tool_call", "id": "call-1", "name": "total", "args": {"prices": [1, 2]}}
            answers = [await once_tool(store, total).ainvoke(call) for _ in range(2)]
            assert [answer.content for answer in answers] == ["3 (run 1)"] * 2
            return [count.value for count in counts]

    assert sorted(asyncio.run(use())) == list(range(2, 52))


def _increment_in_child(store: KeyValueStore, values: Any) -> None:
    values.put(store.increment("n", "c").value)


# Python warns about threads combined with fork, but the store promises to survive exactly that.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_store_survives_a_fork(store: KeyValueStore) -> None:
    store.increment("n", "c")
    context = multiprocessing.get_context("fork")
    values = context.Queue()
    children = [context.Process(target=_increment_in_child, args=(store, values)) for _ in range(4)]
    for child in children:
        child.start()
    mine = [store.increment("n", "c").value for _ in range(5)]
    theirs = [values.get(timeout=30) for _ in children]
    for child in children:
        child.join(timeout=30)
        assert child.exitcode == 0
    assert sorted(mine + theirs) == list(range(2, 11))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_store_survives_a_plain_fork(store: KeyValueStore) -> None:
    store.increment("n", "c")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if store.increment("n", "c").value == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.increment("n", "c").value == 3


def test_a_handmade_message(celery_setup: CeleryTestSetup) -> None:
    app: Celery = celery_setup.app
    arguments = {"namespace": "n", "key": "k", "value": [1, 2]}
    sent = app.send_task("kvworker.kv_set", kwargs=arguments, queue="kv")
    result = {"namespace": "n", "key": "k", "value": [1, 2], "replayed": False}
    assert sent.get(timeout=10) == {**result, "version": app.AsyncResult(sent.id).result["version"]}
    bad = app.send_task("kvworker.kv_set", kwargs={**arguments, "v": 99}, queue="kv")
    with pytest.raises(Exception, match="version 99"):
        bad.get(timeout=10)
    positional = app.send_task("kvworker.kv_get", args=("n", "k"), queue="kv")
    with pytest.raises(InvalidRequestError, match="keyword arguments only"):
        positional.get(timeout=10)


def test_a_worker_answers_celerys_own_inspection(celery_setup: CeleryTestSetup, worker_node: WorkerNode) -> None:
    answers = celery_setup.app.control.inspect(timeout=5).registered()
    assert [name for tasks in answers.values() for name in tasks if name.endswith("kv_get")] == ["kvworker.kv_get"]


def test_each_operation_is_one_line_in_the_log_without_its_value(
    store: KeyValueStore, worker_node: WorkerNode, kv_config: Path
) -> None:
    begin = len(worker_node.logs())
    store.set("n", "k\n\x1b[31m", {"password": "hunter2-in-a-value"})
    with pytest.raises(InvalidValueTypeError):
        store.increment("n", "k\n\x1b[31m")
    store.batch("b", [{"tool": "kv_set", "key": f"key {number}", "value": "hunter2"} for number in range(10)])
    store.usage()

    def lines() -> list[str]:
        return [line for line in worker_node.logs()[begin:].splitlines() if "Task kvworker." in line]

    wait_until(lambda: len(lines()) >= 4, what="the operations in the log")
    shown = [line.partition("Task kvworker.")[2] for line in lines()]
    name = r"namespace 'n', key 'k\n\x1b[31m'"
    set_line, increment_line, batch_line, usage_line = (re.sub(r"\[[-0-9a-f]+\]", "[id]", line) for line in shown)
    assert re.fullmatch(r"kv_set\[id\] succeeded in \d\.\d{4}s: " + re.escape(name), set_line)
    assert increment_line.startswith(f"kv_increment[id] raised InvalidValueTypeError: {name}: the stored value is not")
    keys = ", ".join(f"'key {number}'" for number in range(8))
    assert batch_line.endswith(f": namespace 'b', 10 keys: {keys}, ...")
    assert usage_line.endswith(": the whole store")
    log = worker_node.logs()[begin:]
    assert "hunter2" not in log
    assert "Traceback" not in log
    assert kv_config.read_text() not in log
