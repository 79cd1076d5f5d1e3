"""Servers that refuse what a worker needs: it consumes nothing, says why, and loses neither a message nor a slot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from kvworker import InvalidValueTypeError, KeyValueStore, Settings
from kvworker.ops.doctor import run_checks
from tests.acceptance.conftest import POOLS, ROOT
from tests.acceptance.test_readiness import RESUMED, STOPPED
from tests.support.processes import ValkeyNode, WorkerNode, running, wait_until
from tests.support.servers import free_port

CALL = {"namespace": "n", "key": "c"}
GOES_BACK = "cannot be stored, so its message goes back to the queue"
USER = ("ACL", "SETUSER", "app")


class Refusal(NamedTuple):
    """A way to make a server refuse to store results, and the worker's message about it."""

    begin: Callable[[Any], object]
    end: Callable[[Any], object]
    reason: str
    advice: str


def refused_right(name: str) -> Refusal:
    def begin(client: Any) -> None:
        client.execute_command(*USER, f"-{name}")
        client.execute_command("CLIENT", "KILL", "USER", "app")

    return Refusal(
        begin, lambda client: client.execute_command(*USER, f"+{name}"), f"refuses {name.upper()} ", "grant it"
    )


FULL = Refusal(
    lambda client: client.config_set("maxmemory", 1),
    lambda client: client.config_set("maxmemory", 0),
    "refuses SETEX, INCR ",
    "raise its maxmemory",
)
REPLICA = Refusal(
    lambda client: client.replicaof("127.0.0.1", free_port()),
    lambda client: client.replicaof("NO", "ONE"),
    "refuses SETEX, INCR",
    "it is a replica: name the primary",
)


def use_servers(config: Path, **urls: str) -> None:
    data = yaml.safe_load(config.read_text())
    data["queue"] |= urls
    config.write_text(yaml.safe_dump(data))


def as_user(node: ValkeyNode) -> str:
    with node.client() as client:
        client.execute_command(*USER, "on", ">app", "~*", "&*", "+@all")
    return node.url.replace("redis://", "redis://app:app@")


@pytest.fixture
def results_node(tmp_path: Path, kv_config: Path) -> Iterator[ValkeyNode]:
    """A second server, for results."""
    directory = tmp_path / "results"
    directory.mkdir()
    with running(ValkeyNode(directory, "results")) as node:
        use_servers(kv_config, result_backend=as_user(node))
        yield node


@pytest.mark.parametrize(
    ("worker_arguments", "refusal"),
    [
        (POOLS[1], refused_right("setex")),
        (["--pool=solo"], refused_right("setex")),
        (POOLS[0], refused_right("publish")),
        (POOLS[1], FULL),
        (POOLS[0], REPLICA),
    ],
    ids=["threads-right", "solo-right", "prefork-right", "threads-memory", "prefork-replica"],
)
def test_results_that_are_refused_for_a_while(
    results_node: ValkeyNode,
    worker_node: WorkerNode,
    store: KeyValueStore,
    kv_config: Path,
    refusal: Refusal,
) -> None:
    """A pool of threads lost a slot for each. In the other pools an operation was applied and never answered."""
    assert store.increment("n", "c", timeout=60).value == 1
    with results_node.client() as client:
        refusal.begin(client)
        pending = [store.submit("kv_increment", CALL, timeout=200) for _ in range(4)]
        wait_until(lambda: STOPPED in worker_node.logs() and GOES_BACK in worker_node.logs(), what="the stop")
        (finding,) = run_checks(Settings.load(kv_config), ("results",))
        refusal.end(client)
    assert not finding.ok
    assert refusal.reason in finding.detail
    assert refusal.advice in finding.fix
    (line,) = [line for line in worker_node.logs().splitlines() if STOPPED in line]
    assert refusal.reason in line
    assert refusal.advice in line
    assert sorted(reply.result().value for reply in pending) == [2, 3, 4, 5]
    assert [store.increment("n", "c", timeout=60).value for _ in range(4)] == [6, 7, 8, 9]
    assert RESUMED in worker_node.logs()
    assert "Traceback" not in worker_node.logs()
    assert worker_node.stop() == 0


@pytest.mark.parametrize("right", ["setex", "publish", "mget", "time"])
def test_a_worker_that_may_not_store_results_ends_at_its_start(
    results_node: ValkeyNode, other_worker: WorkerNode, right: str
) -> None:
    with results_node.client() as client:
        client.execute_command(*USER, f"-{right}")
    ends_with(other_worker, f"the results' server refuses {right.upper()} ")


def test_a_worker_drains_a_server_that_its_queue_has_filled(
    worker_node: WorkerNode, store: KeyValueStore, valkey_node: ValkeyNode
) -> None:
    """Queue and results are on one server here, so consuming is what makes room."""
    store.set("n", "k", 1, timeout=60)
    worker_node.kill("SIGSTOP")
    large = {"namespace": "n", "key": "k", "value": "x" * 50_000}
    pending = [store.submit("kv_set", large, timeout=200) for _ in range(60)]
    with valkey_node.client() as client:
        wait_until(lambda: client.llen("kv") >= len(pending) - 4, what="the messages in the queue")
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1_000_000)
        worker_node.kill("SIGCONT")
        assert {reply.result().value for reply in pending} == {large["value"]}
        assert client.config_get("maxmemory")["maxmemory"] != "0"
    assert worker_node.stop() == 0


@pytest.fixture
def broker_user(valkey_node: ValkeyNode, kv_config: Path) -> Iterator[Any]:
    """An administrator who changes the rights of the broker's user. Callers log in as another user."""
    use_servers(kv_config, broker_url=as_user(valkey_node))
    with valkey_node.client() as client:
        yield client


def ends_with(worker: WorkerNode, reason: str) -> None:
    worker.start()
    wait_until(lambda: worker.exit_code is not None, what="the worker's end")
    assert worker.exit_code == 1
    (line,) = [line for line in worker.logs().splitlines() if "CRITICAL" in line]
    assert "this worker cannot serve: " in line
    assert reason in line
    assert "Traceback" not in worker.logs()


def test_a_worker_ends_at_its_start_if_the_broker_refuses_what_it_needs(
    broker_user: Any, other_worker: WorkerNode
) -> None:
    broker_user.execute_command(*USER, "-sadd")
    ends_with(other_worker, "the broker refuses what it needs to consume")


@pytest.mark.parametrize("right", ["sadd", "brpop", "psubscribe", "multi"])
def test_a_running_worker_survives_a_right_that_the_broker_takes_from_it(
    broker_user: Any, worker_node: WorkerNode, store: KeyValueStore, right: str
) -> None:
    assert store.increment("n", "c", timeout=60).value == 1
    broker_user.execute_command(*USER, f"-{right}")
    broker_user.execute_command("CLIENT", "KILL", "USER", "app")
    wait_until(lambda: "the broker refuses" in worker_node.logs(), what="the refusal")
    pending = store.submit("kv_increment", CALL, timeout=200)
    broker_user.execute_command(*USER, f"+{right}")
    assert pending.result().value == 2
    assert worker_node.status == "running"
    assert worker_node.stop() == 0


def test_a_worker_waits_for_a_broker_whose_memory_is_full(
    valkey_node: ValkeyNode, store: KeyValueStore, other_worker: WorkerNode
) -> None:
    with valkey_node.client() as client:
        client.config_set("maxmemory", 1)
        other_worker.start()
        wait_until(lambda: "the broker refuses what this worker needs" in other_worker.logs(), what="the refusal")
        client.config_set("maxmemory", 0)
    assert store.increment("n", "c", timeout=60).value == 1
    assert other_worker.stop() == 0


def documented_user(name: str) -> list[str]:
    """Read from docs/how-to/secure.md the rights of a user."""
    document = (ROOT / "docs" / "how-to" / "secure.md").read_text(encoding="utf-8")
    found = re.search(rf"^user {name} (on >password .+)$", document, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_rights_that_the_documentation_names_suffice(
    results_node: ValkeyNode, kv_config: Path, other_worker: WorkerNode
) -> None:
    """On a server that only keeps results. It refuses neither of the two anything."""
    with results_node.client() as client:
        for name in ("worker", "caller"):
            client.execute_command("ACL", "SETUSER", name, *documented_user(name))
        url = results_node.url.replace("redis://", "redis://{}:password@")
        use_servers(kv_config, result_backend=url.format("worker"))
        other_worker.start()
        assert other_worker.ready()
        caller = Settings.from_mapping(
            {"queue": {"broker_url": Settings.load(kv_config).queue.broker_url, "result_backend": url.format("caller")}}
        )
        with KeyValueStore(caller) as store:
            assert store.increment("n", "c", timeout=60).value == 1
            with pytest.raises(InvalidValueTypeError):
                store.increment("n", store.set("n", "text", "no number").key)
            other_worker.kill("SIGSTOP")
            pending = [store.submit("kv_increment", CALL, timeout=200) for _ in range(8)]
            other_worker.kill("SIGCONT")
            assert sorted(reply.result().value for reply in pending) == list(range(2, 10))
        assert other_worker.stop() == 0
        assert client.execute_command("ACL", "LOG") == []
