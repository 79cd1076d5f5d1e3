"""RabbitMQ as the broker, and Valkey for results. Runs only if a ``rabbitmq-server`` is installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import amqp
import psutil
import pytest
import yaml
from amqp.exceptions import NotFound
from celery import Celery, chain
from kombu import Connection
from kombu.exceptions import OperationalError
from pytest_celery import CeleryBrokerCluster, CeleryTestBroker, CeleryTestSetup

from kvworker import (
    InvalidValueTypeError,
    KeyValueStore,
    OperationExpiredError,
    OperationTimeoutError,
    QueueUnavailableError,
    Settings,
)
from kvworker.messaging.celery_app import make_celery
from kvworker.ops.doctor import run_checks
from kvworker.ops.overview.queues import BrokerState, QueueState, read_queues
from tests.acceptance.conftest import POOLS, ROOT, StartWorker, check_workers_of_one_name
from tests.acceptance.test_hostile_messages import VALUE, check_answers, peak_megabytes, send_with_another_program
from tests.acceptance.test_overload import LATE_CALLS, LATE_SECONDS
from tests.acceptance.test_readiness import take_no_call_while_locked_out
from tests.acceptance.test_timeouts import within
from tests.support.callers import Caller
from tests.support.database import kill_in_the_middle_of_an_increment
from tests.support.elapsed import finishes_within
from tests.support.hostile_amqp import REFUSED, RUN, publish
from tests.support.processes import ValkeyNode, WorkerNode, running, wait_until
from tests.support.rabbitmq import RabbitNode, server_script
from tests.support.roles import WorkerRole
from tests.support.silent_proxy import silent_proxy
from tests.support.tls import make_authority, tls_before_port

pytestmark = [
    pytest.mark.skipif(server_script() is None, reason="no rabbitmq-server is installed on this machine"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    node = RabbitNode(tmp_path_factory.mktemp("rabbit"))
    node.start()
    node.ready()
    yield node
    node.teardown()


@pytest.fixture
def broker_url(rabbit_node: RabbitNode) -> str:
    return rabbit_node.url


@pytest.fixture(autouse=True)
def empty_queues(rabbit_node: RabbitNode) -> None:
    with Connection(rabbit_node.url) as connection, connection.channel() as channel:
        for queue in ("kv", "kv.maintenance"):
            channel.queue_delete(queue)


@pytest.fixture
def celery_broker_cluster(rabbit_node: RabbitNode) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(CeleryTestBroker(rabbit_node))


def test_round_trips(celery_setup: CeleryTestSetup, store: KeyValueStore) -> None:
    assert celery_setup.ready()
    store.set("n", "k", {"a": [1, "\u0000"]}, ttl_seconds=60)
    assert store.get("n", "k").value == {"a": [1, "\u0000"]}
    with pytest.raises(InvalidValueTypeError):
        store.increment("n", "k")
    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(lambda _: store.increment("n", "c", timeout=30).value, range(80)))
    assert sorted(counts) == list(range(1, 81))
    steps = chain(
        store.signature("kv_increment", {"namespace": "n", "key": "c"}),
        store.signature("kv_get", {"namespace": "n", "key": "c"}),
    )
    assert steps.apply_async().get(timeout=20)["value"] == 81


def test_the_overview_counts_what_no_worker_has_taken(store: KeyValueStore, settings: Settings) -> None:
    assert read_queues(settings) == BrokerState(
        (QueueState("kv", 0, consumers=0), QueueState("kv.maintenance", 0, consumers=0))
    )
    with pytest.raises(OperationTimeoutError):
        store.get("n", "k", timeout=1)
    # Nothing tells an age, nor what a worker has taken.
    assert read_queues(settings).queues[0] == QueueState("kv", 1, oldest_seconds=None, consumers=0)


@pytest.fixture
def tls_urls(rabbit_node: RabbitNode, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The broker's TLS URLs: one that works, and two that must fail."""
    ours, stranger = make_authority(tmp_path, "ours"), make_authority(tmp_path, "stranger")
    with tls_before_port(ours.context, rabbit_node.port) as proxy:
        start = f"amqps://guest:guest@{proxy.address}//?ssl_ca_certs="
        good = f"{start}{ours.file}"
        yield {"good": good, "authority": f"{start}{stranger.file}", "host": good.replace("127.0.0.1", "localhost")}


@pytest.mark.parametrize(
    ("part", "wrong"), [("guest:guest", "guest:wrong-password"), ("//", "/no-such-vhost")], ids=str
)
def test_a_refused_login(rabbit_node: RabbitNode, valkey_node: ValkeyNode, part: str, wrong: str) -> None:
    start, separator, end = rabbit_node.url.rpartition(part)
    queue = {"broker_url": f"{start}{wrong}{end}", "result_backend": valkey_node.url}
    assert separator
    with (
        KeyValueStore({"queue": queue}) as store,
        finishes_within(30),
        pytest.raises(QueueUnavailableError, match="the broker refused the login") as caught,
    ):
        store.set("n", "k", 1, timeout=120)
    assert "wrong-password" not in str(caught.value)
    (finding,) = run_checks(Settings.from_mapping({"queue": queue}), ("broker",))
    assert finding.fix.startswith("correct user, password or virtual host in queue.broker_url")
    assert "wrong-password" not in finding.detail


def test_tls(tls_urls: dict[str, str], kv_config: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(kv_config.read_text())
    for name in ("authority", "host"):
        data["queue"]["broker_url"] = tls_urls[name]
        (finding,) = run_checks(Settings.from_mapping(data), ("broker",))
        assert not finding.ok
        assert "certificate verify failed" in finding.detail
    with worker_at(tls_urls["good"], kv_config) as config, KeyValueStore(Settings.load(config)) as store:
        assert store.increment("n", "over-tls", timeout=30).value == 1
        assert store.get("n", "over-tls").value == 1


@contextmanager
def worker_at(broker_url: str, kv_config: Path, pool: str = "solo") -> Iterator[Path]:
    """Run a worker that reaches the broker by another URL, and return its configuration."""
    data = yaml.safe_load(kv_config.read_text())
    data["queue"]["broker_url"] = broker_url
    config = kv_config.with_name("other-url.yaml")
    config.write_text(yaml.safe_dump(data))
    environ = {"KVWORKER_CONFIG": str(config), "PYTHONPATH": str(ROOT)}
    with running(WorkerNode(config.parent, environ, [f"--pool={pool}", "--concurrency=2"], name="other-url")):
        yield config


def test_a_network_that_loses_the_workers_connection_silently(
    store: KeyValueStore, rabbit_node: RabbitNode, kv_config: Path
) -> None:
    """With Celery's own heartbeat a worker notices after minutes, and with py-amqp's own waits a sender never."""
    with silent_proxy(("127.0.0.1", rabbit_node.port)) as proxy:
        url = rabbit_node.url.replace(str(rabbit_node.port), str(proxy.port))
        with worker_at(url, kv_config, "threads") as config, make_celery(Settings.load(config)) as app:
            send = partial(app.send_task, "kvworker.kv_get", kwargs={"namespace": "n", "key": "c"}, retry=False)
            send()
            store.set("n", "c", 0, timeout=60)
            proxy.silence()
            with finishes_within(75):
                pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=200)
                with pytest.raises(OperationalError, match="timed out"):
                    send()
                assert pending.result().value == 1


def test_a_worker_whose_database_goes_away_takes_no_call_until_it_is_back(
    store: KeyValueStore, worker_node: WorkerNode, start_worker: StartWorker, role: WorkerRole
) -> None:
    take_no_call_while_locked_out(store, worker_node, start_worker({"url": role.url}, POOLS[1]), role)


@pytest.mark.parametrize("config_overrides", [{"queue": {"max_message_bytes": 1_000_000}}], ids=["small-messages"])
def test_someone_who_reaches_the_broker_ends_no_worker_and_finds_nothing_in_its_log(
    store: KeyValueStore, worker_node: WorkerNode, rabbit_node: RabbitNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "k", VALUE, timeout=60)
    before = peak_megabytes(worker_node)
    with amqp.Connection(f"127.0.0.1:{rabbit_node.port}", confirm_publish=True) as connection:
        channel = connection.channel()
        channel.exchange_declare("any", "fanout", durable=True, auto_delete=False)
        channel.queue_bind("kv", "any")
        for number, (what, message) in enumerate(REFUSED.items(), start=1):
            publish(channel, message)
            check_answers(store, what)
            wait_until(partial(has_errors, worker_node, number), what=what)
        for what, message in RUN.items():
            publish(channel, message)
            check_answers(store, what)
    if psutil.LINUX:
        assert peak_megabytes(worker_node) < before + 50
    with Celery("stranger", broker=rabbit_node.url, backend=valkey_node.url, set_as_current=False) as stranger:
        send_with_another_program(stranger, store)
        wait_until(lambda: stranger.control.ping(timeout=1.0), what="an answer to a control command")
        assert "Connection to broker lost" not in worker_node.logs()
        # RabbitMQ closes the channel on which someone declares a queue with this name.
        stranger.control.add_consumer("amq.kv")
        wait_until(lambda: "amq.kv of a remote-control command cannot be used" in worker_node.logs(), what="a refusal")
        check_answers(store, "a queue that cannot be declared")
    assert worker_node.stop() == 0
    assert messages_in(rabbit_node, "kv") == 0
    logs = worker_node.logs()
    assert "Traceback" not in logs
    assert VALUE not in logs


def has_errors(worker_node: WorkerNode, number: int) -> bool:
    return worker_node.logs().count("ERROR") == number


def messages_in(rabbit_node: RabbitNode, queue: str) -> int:
    with Connection(rabbit_node.url) as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


def test_late_messages_never_reach_the_pool_and_are_dropped_without_pauses(
    store: KeyValueStore, rabbit_node: RabbitNode, request: pytest.FixtureRequest
) -> None:
    call = {"namespace": "n", "key": "c"}
    late = [store.submit("kv_increment", call, timeout=LATE_SECONDS) for _ in range(LATE_CALLS)]
    live = store.submit("kv_set", {"namespace": "n", "key": "l", "value": 1}, timeout=120)
    late_until = time.monotonic() + LATE_SECONDS
    wait_until(lambda: messages_in(rabbit_node, "kv") == LATE_CALLS + 1 and time.monotonic() > late_until)
    worker: WorkerNode = request.getfixturevalue("worker_node")
    with finishes_within(10):
        wait_until(lambda: messages_in(rabbit_node, "kv") == 0, what="the late messages dropped")
    for pending in late:
        with pytest.raises(OperationExpiredError):
            pending.result(timeout=60)
    assert live.result().value == 1
    assert not store.get("n", "c").found
    assert "dropped" in worker.logs()
    assert "kv_increment[" not in worker.logs(), "late messages reached the pool"


def test_a_worker_killed_in_the_middle(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str, other_worker: WorkerNode
) -> None:
    kill_in_the_middle_of_an_increment(store, worker_node, postgres_url, other_worker)


def test_the_broker_killed_and_restarted(
    store: KeyValueStore, worker_node: WorkerNode, rabbit_node: RabbitNode
) -> None:
    store.set("n", "c", 0)
    rabbit_node.kill()
    with within(1.0), pytest.raises(QueueUnavailableError):
        store.increment("n", "c", timeout=1.0)
    pending = [store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=90) for _ in range(10)]
    rabbit_node.start()
    rabbit_node.ready()
    assert sorted(reply.result().value for reply in pending) == list(range(1, 11))
    assert worker_node.status == "running"


_QUORUM = {"x-queue-type": "quorum"}


@pytest.mark.parametrize("config_overrides", [{"queue": {"arguments": _QUORUM}}], ids=["quorum"])
def test_queues_that_an_operator_declared_as_quorum_queues(
    store: KeyValueStore, rabbit_node: RabbitNode, request: pytest.FixtureRequest
) -> None:
    """Without ``queue.arguments`` RabbitMQ ends the worker with a 406."""
    with Connection(rabbit_node.url) as connection, connection.channel() as channel:
        for name in ("kv", "kv.maintenance"):
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=_QUORUM)
    declared_at = time.monotonic()
    worker: WorkerNode = request.getfixturevalue("worker_node")
    assert store.increment("n", "c", timeout=60).value == 1
    # RabbitMQ 3.10 may keep the queue's log without the queue if it is killed within seconds of a declaration.
    wait_until(lambda: time.monotonic() > declared_at + 5)
    rabbit_node.kill()
    pending = [store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=100) for _ in range(10)]
    rabbit_node.start()
    rabbit_node.ready()
    assert sorted(reply.result().value for reply in pending) == list(range(2, 12))
    assert worker.status == "running", worker.logs()
    with Connection(rabbit_node.url) as connection, connection.channel() as channel, pytest.raises(NotFound):
        channel.queue_declare("celery_delayed_0", passive=True)


def test_a_frozen_broker(store: KeyValueStore, worker_node: WorkerNode, rabbit_node: RabbitNode) -> None:
    store.set("n", "c", 0)
    rabbit_node.kill("SIGSTOP")
    try:
        with within(1.0), pytest.raises(Exception, match="operation"):
            store.increment("n", "c", timeout=1.0, idempotency_key="frozen")
    finally:
        rabbit_node.kill("SIGCONT")
    assert store.increment("n", "c", timeout=60, idempotency_key="frozen").value == 1
    assert store.get("n", "c", timeout=20).value == 1


def test_doctor_counts_a_frozen_worker_beside_one_that_answers(
    settings: Settings, worker_node: WorkerNode, other_worker: WorkerNode
) -> None:
    other_worker.start()
    assert other_worker.ready()
    wait_until(lambda: all(finding.ok for finding in run_checks(settings, ("worker",))), what="both workers answering")
    other_worker.kill("SIGSTOP")
    # RabbitMQ may hand the probe to the frozen one, so its finding may be a failure too.
    *_, last = run_checks(settings, ("worker",))
    assert (last.ok, last.detail) == (False, "1 worker is connected to the broker and does not answer")
    assert worker_node.status == "running"


def test_doctor_names_workers_that_share_a_name(
    settings: Settings, worker_node: WorkerNode, namesake: WorkerNode
) -> None:
    check_workers_of_one_name(settings, worker_node, namesake)


def test_a_password_is_changed_without_a_refused_call(tmp_path: Path, kv_config: Path, rabbit_node: RabbitNode) -> None:
    """The file changes first: until RabbitMQ has the new password, the old one is used."""
    user, old, new = "rotated", "the-old-password", "the-new-password"
    rabbit_node.control("add_user", user, old)
    rabbit_node.control("set_permissions", user, ".*", ".*", ".*")
    data = yaml.safe_load(kv_config.read_text())
    del data["queue"]["broker_url"]
    kv_config.write_text(yaml.safe_dump(data))
    file = tmp_path / "url"
    environ = {"KVWORKER_CONFIG": str(kv_config), "KVWORKER_BROKER_URL_FILE": str(file), "PYTHONPATH": str(ROOT)}

    def write(password: str) -> None:
        file.write_text(rabbit_node.url.replace("guest:guest", f"{user}:{password}"))

    write(old)
    caller = Caller(Settings.load(kv_config, environ=environ))
    with running(WorkerNode(tmp_path, environ, POOLS[0])) as worker:

        def goes_on() -> None:
            rabbit_node.control("close_all_user_connections", user, "a new password")
            caller.makes_progress()

        with caller.running():
            caller.makes_progress()
            goes_on()
            write(new)
            goes_on()
            rabbit_node.control("change_password", user, new)
            goes_on()
        assert caller.error is None
        with KeyValueStore(caller.settings) as store:
            assert store.get("n", "calls", timeout=60).value == caller.answered
        assert worker.stop() == 0
        assert old not in worker.logs()
        assert new not in worker.logs()
    rabbit_node.control("delete_user", user)
