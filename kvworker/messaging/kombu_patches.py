"""Faults of kombu that would break a promise, mended in place until a release mends them."""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import cached_property
from queue import Empty
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.backends.redis import RedisBackend
from kombu import Connection
from kombu.transport.redis import Channel, QoS, Transport
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

_CLIENT = "_kvworker_client"
_REFUSED_SECONDS = 1.0
#: Of each cached property there is one lock, in the class.
_WITH_LOCKS = (Connection, Channel, Transport, QoS, Celery, AMQP, RedisBackend)

_connparams = Channel._connparams
_create_client = Channel._create_client
_brpop_read = Channel._brpop_read
_deliver = Transport._deliver


def apply() -> None:
    """Mend kombu 5.7.0 in this process; calling it again changes nothing.

    After a broker restart a closed channel is asked for its connection parameters and raises AttributeError
    (``NoneType`` has no ``client`` or ``hostname``), which Celery does not take for a lost connection, so
    the worker exits with code 1. Raised as a ConnectionError, it reconnects.

    Each publish, take and acknowledgement makes a new Redis client, at two fifths of a publish's cost; one
    client for each pool of connections does as well.

    What the server refuses (it is a replica now, the key is of another type) raises there as well, and ends
    it; it is a lost connection instead, after a pause.

    An item in a queue's list that is no JSON, or no message, raises in the worker's main process and ends
    it. It is dropped with a log line, which does not show it.
    """
    Channel._connparams = _connparams_of_open_channel
    Channel._create_client = _client_of_pool
    Channel._brpop_read = _read_json
    Transport._deliver = _deliver_messages


def _renew_locks() -> None:
    """Give a forked child locks that nobody holds: another thread of its parent may have held them at that moment."""
    for owner in {base for cls in _WITH_LOCKS for base in cls.__mro__}:
        for attribute in vars(owner).values():
            if isinstance(attribute, cached_property) and hasattr(attribute, "lock"):
                attribute.lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


def _connparams_of_open_channel(channel: Channel, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
    if channel.connection is None or channel.connection.client is None:
        raise RedisConnectionError("the channel is closed")
    params: dict[str, Any] = _connparams(channel, asynchronous)
    return params


def _client_of_pool(channel: Channel, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
    if asynchronous:
        return _create_client(channel, asynchronous=True)
    client = channel.__dict__.get(_CLIENT)
    if client is None or client.connection_pool is not channel.pool:
        client = channel.__dict__[_CLIENT] = _create_client(channel)
    return client


def _read_json(channel: Channel, **options: Any) -> Any:
    try:
        return _brpop_read(channel, **options)
    except ValueError as error:
        logger.error("an item that cannot be decoded is dropped from a queue: %s", type(error).__name__)  # noqa: TRY400 - a traceback could show it
        raise Empty from None
    except ResponseError as error:
        # A replica, a key of another type: worth waiting for who mends it.
        logger.error("the broker refuses to hand out messages, trying again: %s", error)  # noqa: TRY400
        time.sleep(_REFUSED_SECONDS)
        raise RedisConnectionError(str(error)) from None


def _deliver_messages(transport: Transport, message: Any, queue: str) -> None:
    if _is_message(message):
        _deliver(transport, message, queue)
    else:
        logger.error("an item that is no message is dropped from the queue %s", queue)


def _is_message(message: Any) -> bool:
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(properties, dict) or not isinstance(message.get("headers", {}), dict):
        return False
    if not isinstance(message.get("body"), str) or properties.get("body_encoding") not in (None, "base64"):
        return False
    delivery = properties.get("delivery_info")
    return isinstance(properties.get("delivery_tag"), str) and isinstance(delivery, dict) and "exchange" in delivery
