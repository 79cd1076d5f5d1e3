"""Faults of kombu that would break a promise, mended in place until a release mends them."""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel
from redis.exceptions import ConnectionError as RedisConnectionError

_connparams = Channel._connparams


def apply() -> None:
    """Mend kombu in this process; calling it again changes nothing.

    kombu 5.7.0: after a broker restart a closed channel is asked for its connection parameters and
    raises AttributeError (``NoneType`` has no ``client`` or ``hostname``), which Celery does not take for
    a lost connection, so the worker exits with code 1. Raised as a ConnectionError, it reconnects.
    """
    Channel._connparams = _connparams_of_open_channel


def _connparams_of_open_channel(channel: Channel, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
    if channel.connection is None or channel.connection.client is None:
        raise RedisConnectionError("the channel is closed")
    params: dict[str, Any] = _connparams(channel, asynchronous)
    return params
