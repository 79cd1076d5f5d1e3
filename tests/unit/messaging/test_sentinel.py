"""What a caller is told while no Sentinel answers. ``tests/acceptance/test_sentinel.py`` has one that does."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from kvworker.messaging.sentinel import PrimaryConnection
from kvworker.settings.sentinel_urls import SentinelAddress
from tests.support.servers import free_port


def test_no_sentinel_answers() -> None:
    hosts = (("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    connection = PrimaryConnection(sentinel=SentinelAddress(hosts, "m", password="secret"))  # noqa: S106 - of no server
    shown = f"none of the Sentinels at 127.0.0.1:{hosts[0][1]}, 127.0.0.1:{hosts[1][1]} answers: .*refused"
    with pytest.raises(RedisConnectionError, match=shown) as caught:
        connection.connect()
    assert "secret" not in str(caught.value)
