"""The error of a call without an answer: by a wrong password, a timeout, an interruption or a cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvworker import (
    AsyncKeyValueStore,
    InlineKeyValueStore,
    InvalidRequestError,
    KeyValueStore,
    KVStoreError,
    OperationTimeoutError,
    QueueUnavailableError,
    Settings,
    UnknownOutcomeError,
)
from kvworker.ops.doctor import run_checks
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, running, wait_until
from tests.support.servers import free_port

#: Far above the time that a refusal takes on a busy machine, and far below the calls' timeout.
_SOON_SECONDS = 30
_TIMEOUT_SECONDS = 120


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ValkeyNode]:
    directory = tmp_path / "valkey"
    directory.mkdir()
    with running(ValkeyNode(directory)) as node:
        yield node


@pytest.fixture
def store(node: ValkeyNode) -> Iterator[KeyValueStore]:
    """A store without a worker."""
    with KeyValueStore(configuration(node.url)) as store:
        yield store


def configuration(url: str, results: str | None = None) -> dict[str, Any]:
    return {"queue": {"broker_url": url, "result_backend": results or url}}


def increment(store: KeyValueStore) -> object:
    return store.increment("n", "k", timeout=_TIMEOUT_SECONDS)


def increment_in_many_threads(store: KeyValueStore) -> None:
    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(increment, store) for _ in range(200)]
    errors = [call.exception() for call in calls]
    assert {type(error) for error in errors} == {QueueUnavailableError}
    raise errors[0] or AssertionError


def increment_in_a_pipeline(store: KeyValueStore) -> None:
    with store.pipeline(timeout=_TIMEOUT_SECONDS) as pipeline:
        pipeline.increment("n", "k")


@pytest.mark.parametrize("call", [increment, increment_in_many_threads, increment_in_a_pipeline])
def test_a_wrong_password_of_the_broker_is_told_at_once(
    node: ValkeyNode, call: Callable[[KeyValueStore], object]
) -> None:
    with node.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">right-password", "~*", "&*", "+@all")
    wrong = node.url.replace("redis://", "redis://app:wrong-password@")
    with (
        KeyValueStore(configuration(wrong, node.url)) as store,
        finishes_within(_SOON_SECONDS),
        pytest.raises(KVStoreError) as caught,
    ):
        call(store)
    assert "the broker refused the login" in str(caught.value)
    assert "correct user, password or virtual host in queue.broker_url" in str(caught.value)
    assert "wrong-password" not in str(caught.value)


@pytest.mark.parametrize("call", [increment, increment_in_many_threads, increment_in_a_pipeline])
def test_a_wrong_password_of_the_results_is_told_at_once(
    node: ValkeyNode, call: Callable[[KeyValueStore], object]
) -> None:
    """The broker has another login, and takes messages. Once the refusal is known, nothing is sent any more."""
    wrong = node.url.replace("redis://", "redis://nobody:wrong-password@")
    with KeyValueStore(configuration(node.url, wrong)) as store, finishes_within(_SOON_SECONDS):
        with pytest.raises(KVStoreError) as first:
            store.increment("n", "k", timeout=_TIMEOUT_SECONDS)
        sent = queue_length(node)
        # The first call's message races with the refusal.
        assert isinstance(first.value, OperationTimeoutError if sent else QueueUnavailableError)
        assert ("whether it was applied is unknown" if sent else "it was not applied") in str(first.value)
        with pytest.raises(KVStoreError) as later:
            call(store)
        assert queue_length(node) == sent
    for error in (first.value, later.value):
        assert "correct user, password or rights of queue.result_backend" in str(error)
        assert "wrong-password" not in str(error)


def no_socket(_node: ValkeyNode) -> str:
    return "redis+socket://no-such-directory/valkey.sock"


def no_server(_node: ValkeyNode) -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def no_sentinel(_node: ValkeyNode) -> str:
    return f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/0?master_name=kv"


def no_database(node: ValkeyNode) -> str:
    return f"{node.url.removesuffix('/0')}/999"


_START = "start the broker (`kvworker up` starts a local one), or correct queue.broker_url"


@pytest.mark.parametrize(
    ("broker", "reason", "remedy", "fix"),
    [
        (no_socket, "/no-such-directory/valkey.sock. No such file or directory", _START, _START),
        (no_server, "Connection refused", _START, _START),
        (no_sentinel, "none of the Sentinels at 127.0.0.1:", _START, _START),
        (
            no_database,
            "DB index is out of range",
            "the broker runs, so correct queue.broker_url or the broker",
            "the server answers, so correct queue.broker_url or the server",
        ),
    ],
    ids=["socket", "port", "sentinels", "database"],
)
def test_an_error_asks_nothing_that_its_reason_answers(
    node: ValkeyNode, broker: Callable[[ValkeyNode], str], reason: str, remedy: str, fix: str
) -> None:
    """It asked whether the broker runs, and gave the reason behind that. The doctor said to start a running server."""
    settings = Settings.from_mapping(configuration(broker(node), node.url))
    with KeyValueStore(settings) as store, pytest.raises(QueueUnavailableError) as caught:
        store.get("n", "k", timeout=2)
    told = str(caught.value)
    assert reason in told
    assert told.endswith(f"); {remedy}")
    assert "?" not in told.partition("it was not applied")[2].replace("?master_name", "")
    (finding,) = run_checks(settings, ("broker",))
    assert reason in finding.detail
    assert finding.fix == fix


def test_a_full_broker_is_not_taken_for_one_that_does_not_run(node: ValkeyNode, store: KeyValueStore) -> None:
    with node.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(QueueUnavailableError, match="maxmemory") as caught:
        store.set("n", "k", 1, timeout=2)
    assert str(caught.value).endswith("; the broker runs, so correct queue.broker_url or the broker")


def test_doctor_says_to_correct_a_login_that_is_refused(node: ValkeyNode) -> None:
    """It said to start the server that had just refused the login."""
    wrong = node.url.replace("redis://", "redis://nobody:wrong-password@")
    findings = list(run_checks(Settings.from_mapping(configuration(wrong)), ("broker", "results")))
    fixes = {finding.name: finding.fix for finding in findings}
    assert fixes == {
        "broker": "correct user, password or virtual host in queue.broker_url, or the user's rights on the server",
        "results": "correct user or password in queue.result_backend, or the user's rights on the server",
    }
    assert not [finding for finding in findings if finding.ok or "wrong-password" in finding.detail]


def test_a_right_of_the_results_that_is_taken_away_and_given_back(node: ValkeyNode) -> None:
    with (
        node.client() as client,
        KeyValueStore(configuration(node.url, node.url.replace("://", "://app:app@"))) as store,
    ):
        client.execute_command("ACL", "SETUSER", "app", "on", ">app", "~*", "&*", "+@all", "-psubscribe")
        with finishes_within(_SOON_SECONDS), pytest.raises(KVStoreError, match="NoPermissionError"):
            store.get("n", "k", timeout=_TIMEOUT_SECONDS)
        client.execute_command("ACL", "SETUSER", "app", "+psubscribe")
        wait_until(lambda: is_sent_again(store), what="calls being sent again")


def is_sent_again(store: KeyValueStore) -> bool:
    """Call without a worker: a refusal comes at once, and a timeout shows that the message was sent."""
    with pytest.raises(KVStoreError) as caught:
        store.get("n", "k", timeout=1)
    return "no result within the timeout" in str(caught.value)


def test_a_coroutine_is_told_of_a_wrong_password_too(node: ValkeyNode) -> None:
    wrong = node.url.replace("redis://", "redis://nobody:wrong@")

    async def get() -> None:
        async with AsyncKeyValueStore(configuration(wrong, node.url)) as store:
            await store.get("n", "k", timeout=_TIMEOUT_SECONDS)

    with finishes_within(_SOON_SECONDS), pytest.raises(QueueUnavailableError, match="refused the login"):
        asyncio.run(get())


def test_a_read_that_timed_out_may_just_be_called_again(store: KeyValueStore) -> None:
    with pytest.raises(OperationTimeoutError) as read:
        store.get("n", "k", timeout=1)
    assert "you can call again" in str(read.value)
    assert "idempotency_key" not in str(read.value)
    with pytest.raises(UnknownOutcomeError) as write:
        store.set("n", "k", 1, timeout=1)
    assert "idempotency_key" in str(write.value)


def queue_length(node: ValkeyNode) -> int:
    with node.client() as client:
        return int(client.llen("kv"))


def is_queued(node: ValkeyNode) -> bool:
    return queue_length(node) > 0


def interrupt_once_queued(node: ValkeyNode) -> None:
    wait_until(lambda: is_queued(node))
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_call_gives_its_operation_id(node: ValkeyNode, store: KeyValueStore) -> None:
    interrupter = threading.Thread(target=interrupt_once_queued, args=[node])
    interrupter.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        increment(store)
    interrupter.join()
    (note,) = caught.value.__notes__
    assert f"idempotency_key={caught.value.operation_id!r}" in note  # type: ignore[attr-defined]


def test_a_cancelled_call_gives_its_operation_id(node: ValkeyNode) -> None:
    async def cancel() -> BaseException:
        async with AsyncKeyValueStore(configuration(node.url)) as store:
            call = asyncio.ensure_future(store.increment("n", "k", timeout=_TIMEOUT_SECONDS))
            while not await asyncio.to_thread(is_queued, node):
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
            return caught.value

    error = asyncio.run(cancel())
    with node.client() as client:
        assert error.operation_id.encode() in client.lindex("kv", 0)  # type: ignore[attr-defined]
    assert "kv_increment was interrupted" in error.__notes__[0]


@pytest.mark.parametrize("make", [KeyValueStore, AsyncKeyValueStore, InlineKeyValueStore])
@pytest.mark.parametrize("by", ["constructor", "from_config"])
def test_a_store_is_made_from_a_file_or_a_mapping(make: Any, by: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    sqlite = "tools: {kv_store: {default_adapter: sqlite, adapters: {sqlite: {url: 'sqlite://'}}}}"
    file.write_text(f"queue: {{queue_name: other}}\n{sqlite}\n")
    adapters = {"sqlite": {"url": "sqlite://"}}
    tools = {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}
    mapping = {"queue": {"queue_name": "other"}, "tools": tools}
    construct = make if by == "constructor" else make.from_config
    for source in (str(file), file, mapping):
        assert construct(source).settings.queue.queue_name == "other"
    with pytest.raises(
        KVStoreError, match=r"should be Settings, a file's path or a mapping .*, not an object of type int"
    ):
        construct(5)
    with pytest.raises(KVStoreError, match=r"not a URL$"):
        construct("redis://user:password@host/0")


def test_a_closed_inline_store_says_so() -> None:
    store = InlineKeyValueStore()
    store.set("n", "k", 1)
    store.close()
    with pytest.raises(InvalidRequestError, match="the store is closed; make a new one"):
        store.get("n", "k")
