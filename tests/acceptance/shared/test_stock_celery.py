"""Every canvas primitive and its stored results: operations beside plain Celery tasks of the same bodies.

Each canvas runs with both in real workers. Every field must be equal, except for the differences that
``tests.support.stock_differences`` lists with their reasons.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import pytest
from celery import Celery, chain, group
from celery.canvas import Signature
from celery.exceptions import NotRegistered
from celery.result import GroupResult
from redis import Redis

from kvworker import InvalidValueTypeError, KeyValueStore, Settings
from kvworker.messaging.celery_app import make_celery
from tests.acceptance.conftest import ROOT, write_config
from tests.support.canvases import ALL, CARD_NUMBER, Canvas, World
from tests.support.outcomes import Names, Sent, told_by
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until
from tests.support.servers import PostgresServer
from tests.support.stock_differences import DIFFERENCES, with_differences

WAIT_SECONDS = 60
HOST = socket.gethostname()

#: Sends a canvas by its name.
Send: TypeAlias = Callable[[str, Canvas], Sent]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def pool(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kv_environ: dict[str, str],
    valkey_node: ValkeyNode,
    postgres_server: PostgresServer,
) -> Iterator[str]:
    """A pool of which both kinds of workers run: kvworker's own, and a stock one with its own database."""
    pool, directory = str(request.param), tmp_path_factory.mktemp("workers")
    options = [f"--pool={pool}", "--concurrency=2", "result.extended=true"]
    database = postgres_server.create_database()
    config = write_config(directory, postgres_server.url(database), valkey_node.url, valkey_node.url, {})
    environ = {**kv_environ, "KVWORKER_CONFIG": str(config), "STOCK_BROKER": valkey_node.url}
    ours = WorkerNode(directory, kv_environ, options, name="ours")
    celery = [sys.executable, "-m", "celery", "-A", "tests.support.stock_tasks", "worker", "-l", "INFO"]
    command = [*celery, "-n", "stock@%h", "-Q", "stock,host", *options]
    stock = ProcessNode("stock", command, directory=directory, environ=environ)
    with ExitStack() as stack:
        stack.callback(postgres_server.drop_database, database)
        for node in (ours, stock):
            stack.callback(node.teardown)
            node.start()
        assert ours.ready(), ours.logs()
        wait_until(lambda: "ready." in stock.logs() or stock.status == "exited", what="the stock worker's start")
        assert stock.status == "running", stock.logs()
        yield pool
        # An error is an answer to the caller, and no fault of the worker.
        assert "Traceback" not in ours.logs()
        assert CARD_NUMBER not in ours.logs()


@pytest.fixture(scope="module")
def host_app(valkey_node: ValkeyNode) -> Iterator[Celery]:
    """The host program's application, which is Celery's current one."""
    with Celery("host", broker=valkey_node.url, backend=valkey_node.url) as app:
        yield app
        # A result that is collected later would unsubscribe, from a server that is gone by then.
        app.backend.result_consumer.stop()
        app.backend.result_consumer._pubsub = None


@pytest.fixture
def send_stock(pool: str, host_app: Celery, valkey_node: ValkeyNode) -> Iterator[Send]:
    """Send a canvas of plain tasks."""

    def operation(tool: str, arguments: Mapping[str, Any]) -> Signature:
        immutable = tool != "kv_set" or "value" in arguments
        return host_app.signature(f"stock.{tool}", kwargs=dict(arguments), queue="stock", immutable=immutable)

    with valkey_node.client() as redis:

        def send(name: str, canvas: Canvas) -> Sent:
            world = World(host_app, operation, "stock", "stock", f"{pool} {name}")
            return _sent(world, canvas, redis, {"stock": "kv", f"stock@{HOST}": "worker"})

        yield send


@pytest.fixture
def send_ours(pool: str, host_app: Celery, settings: Settings, valkey_node: ValkeyNode) -> Iterator[Send]:
    """Send a canvas of kvworker's operations."""
    with valkey_node.client() as redis, KeyValueStore(settings) as store:

        def send(name: str, canvas: Canvas) -> Sent:
            world = World(host_app, store.signature, settings.queue.queue_name, "kvworker", f"{pool} {name}")
            return _sent(world, canvas, redis, dict.fromkeys((f"ours@{HOST}", f"stock@{HOST}"), "worker"))

        yield send


def _sent(world: World, canvas: Canvas, redis: Redis, known: Mapping[str, str]) -> Sent:
    sent = Sent(world.app, redis, canvas(world), world.noted, world.without_result, known)
    wait_until(sent.is_done, timeout_seconds=WAIT_SECONDS, what="the results")
    return sent


@pytest.mark.parametrize("name", ALL)
def test_a_canvas_leaves_what_stock_celery_leaves(name: str, send_stock: Send, send_ours: Send) -> None:
    expected = with_differences(name, send_stock(name, ALL[name]).records())
    ours = send_ours(name, ALL[name])
    with suppress(AssertionError):  # The last result may be about to replace the one before.
        wait_until(lambda: ours.records() == expected, timeout_seconds=10)
    assert ours.records() == expected


def test_the_page_for_users_of_celery_lists_each_difference() -> None:
    page = " ".join((ROOT / "docs/how-to/celery.md").read_text(encoding="utf-8").split())
    assert [each.documented for each in DIFFERENCES if each.documented not in page] == []


def _ask_results(w: World) -> Any:
    """Use what results offer, and return what they answer."""
    last = chain(w.own("shout", "x"), w.keep()).apply_async()
    many = group(w.count("a"), w.count("b"), w.own("shout", "x")).apply_async()
    failed = w.fail().apply_async()
    many.save()
    answers = {
        "get": last.get(timeout=WAIT_SECONDS),
        "collect": [value for _, value in last.collect(timeout=WAIT_SECONDS)],
        "parent": last.parent.get(timeout=WAIT_SECONDS),
        "join": many.join(timeout=WAIT_SECONDS),
        "join_native": many.join_native(timeout=WAIT_SECONDS),
        "in order of ending": sorted(str(type(value)) for _, value in many.iter_native(timeout=WAIT_SECONDS)),
        "count": (many.completed_count(), many.successful(), many.failed(), many.waiting()),
        "restored": GroupResult.restore(many.id, app=w.app).get(timeout=WAIT_SECONDS),
        "kept": failed.get(timeout=WAIT_SECONDS, propagate=False).args,
    }
    with pytest.raises(InvalidValueTypeError, match="not a JSON integer") as caught:
        failed.get(timeout=WAIT_SECONDS)
    answers["raised"] = caught.value.args
    last.forget()
    return {**answers, "forgotten": (last.state, last.result)}


# Celery stores a group by a command that redis-py calls deprecated.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_results_answer_as_those_of_stock_celery(pool: str, send_stock: Send, send_ours: Send) -> None:
    answers = {}
    for kind, send in (("stock", send_stock), ("ours", send_ours)):

        def ask(world: World, kind: str = kind) -> Any:
            answers[kind] = Names({}).shared(_ask_results(world))
            return world.own("shout", "end").apply_async()

        send("results", ask)
    assert answers["ours"] == answers["stock"]


def test_an_application_of_kvworkers_reads_the_same(send_ours: Send, settings: Settings) -> None:
    sent = send_ours("two readers", ALL["chain that fails"])
    with make_celery(settings) as own_app:
        for task_id in sent.stored():
            assert told_by(own_app, task_id) == told_by(sent.app, task_id)


def test_an_operation_does_not_run_in_the_callers_process(pool: str, send_ours: Send) -> None:
    def apply(world: World) -> Any:
        with pytest.raises(NotRegistered):
            world.count().apply()
        with pytest.raises(NotRegistered):
            world.count()()
        return world.own("shout", "end").apply_async()

    send_ours("eager", apply)
