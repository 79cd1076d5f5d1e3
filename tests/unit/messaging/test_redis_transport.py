"""Our Redis transport survives faults. The stock classes show each fault too: a test fails when the fault is gone."""

from __future__ import annotations

import logging
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.transport.redis import Channel, Transport
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from kvworker.messaging import redis_transport
from kvworker.messaging.redis_transport import RedisChannel, RedisTransport

NOT_NEEDED = "kombu no longer has this fault, so our method can go"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_transport, "_REFUSED_PAUSE_SECONDS", 0.0)


def unconnected(cls: Any, **attributes: Any) -> Any:
    """Make a channel or transport without a server."""
    made = cls.__new__(cls)
    vars(made).update(attributes)
    return made


CLOSED = {"no transport": None, "no connection": SimpleNamespace(client=None)}


@pytest.mark.parametrize("connection", CLOSED.values(), ids=CLOSED)
def test_a_closed_channel_is_a_lost_connection(connection: Any) -> None:
    with pytest.raises(AttributeError):
        unconnected(Channel, connection=connection)._connparams()
    with pytest.raises(RedisConnectionError, match="closed"):
        unconnected(RedisChannel, connection=connection)._connparams()


def test_a_pool_has_one_client() -> None:
    pool = SimpleNamespace(connection_kwargs={})
    stock, ours = (unconnected(cls, _pool=pool, Client=SimpleNamespace) for cls in (Channel, RedisChannel))
    assert stock._create_client() is not stock._create_client(), NOT_NEEDED
    assert ours._create_client() is ours._create_client()
    before = ours._create_client()
    ours._pool = SimpleNamespace(connection_kwargs={})
    assert ours._create_client() is not before


def receiving(cls: Any, answer: Any) -> Any:
    """Make a channel whose server answers BRPOP with ``answer``."""

    def parse_response(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = SimpleNamespace(parse_response=parse_response, connection=None)
    return unconnected(
        cls,
        client=client,
        connection=SimpleNamespace(_deliver=None),
        connection_errors=(RedisConnectionError,),
        sep="\x06\x16",
        _queue_cycle=SimpleNamespace(rotate=lambda _: None),
        _flush_brpop_reauth=lambda: None,
    )


def test_an_item_that_is_not_json_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    answer = (b"kv", b"{the-secret")
    with pytest.raises(ValueError, match="Expecting"):
        receiving(Channel, answer)._brpop_read()
    with caplog.at_level(logging.ERROR), pytest.raises(Empty):
        receiving(RedisChannel, answer)._brpop_read()
    assert "is dropped from" in caplog.text
    assert "the-secret" not in caplog.text


def test_a_refusal_to_deliver_is_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    refusal = ResponseError("UNBLOCKED force unblock from blocking operation")
    with pytest.raises(ResponseError):
        receiving(Channel, refusal)._brpop_read()
    with caplog.at_level(logging.ERROR), pytest.raises(RedisConnectionError, match="UNBLOCKED"):
        receiving(RedisChannel, refusal)._brpop_read()
    assert "refuses to hand out messages" in caplog.text


class Deliveries:
    """A transport that records what it delivers."""

    def __init__(self, cls: Any) -> None:
        self.delivered: list[Any] = []
        self.transport = unconnected(cls, _callbacks={"kv": self.delivered.append})


@pytest.mark.parametrize("item", [[], 5, None, {}, {"body": "x"}, {"properties": {"delivery_tag": "t"}}])
def test_an_item_that_is_not_a_message_is_dropped(item: Any, caplog: pytest.LogCaptureFixture) -> None:
    ours = Deliveries(RedisTransport)
    with caplog.at_level(logging.ERROR):
        ours.transport._deliver(item, "kv")
    assert not ours.delivered
    assert "is dropped from the queue kv" in caplog.text


def test_a_message_is_delivered() -> None:
    properties = {
        "delivery_tag": "t",
        "delivery_info": {"exchange": "kv", "routing_key": "kv"},
        "body_encoding": "base64",
    }
    message = {"body": "", "headers": {}, "properties": properties}
    for cls in (Transport, RedisTransport):
        deliveries = Deliveries(cls)
        deliveries.transport._deliver(message, "kv")
        assert deliveries.delivered == [message]


def test_the_stock_transport_delivers_an_item_that_kombu_cannot_read() -> None:
    item = {"body": "x"}
    stock = Deliveries(Transport)
    stock.transport._deliver(item, "kv")
    assert stock.delivered, NOT_NEEDED
    with pytest.raises(KeyError):
        Channel.Message(item)
