"""Reads how many messages wait in the queues, and for how long, without taking one.

On Redis a queue is a list whose end holds the next message to be taken, so a look at it tells the age of the oldest
one. AMQP has no way to look at a message without taking it, and putting it back would count as a redelivery. So on
RabbitMQ the age is unknown, and only the messages that no worker has taken are counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu.utils.json import loads
from redis.exceptions import RedisError

from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.envelope import problem_of_item
from kvworker.messaging.redis_connections import RedisConnection, connect, exchange
from kvworker.messaging.waiting import is_time
from kvworker.messaging.wire import WAITING
from kvworker.settings import Settings
from kvworker.settings.urls import speaks_redis

#: At the end of a list, so many messages are looked at for one that tells when it was sent, ...
_MOST_LOOKED_AT: Final = 16
#: ... as long as they hold fewer bytes than this together.
_MOST_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class QueueState:
    """A queue.

    Attributes:
        name: Its name.
        depth: The messages that wait in it.
        oldest_seconds: The age of the oldest one. None if the queue is empty, or if nothing tells the age: on RabbitMQ,
            and where only messages of an older release or of a host program's own Celery application wait.
        consumers: The workers that consume it; None on Redis, which does not know them.
    """

    name: str
    depth: int
    oldest_seconds: float | None = None
    consumers: int | None = None


@dataclass(frozen=True)
class BrokerState:
    """The queues, and the messages that workers have taken and not acknowledged.

    Attributes:
        queues: The queue of operations and the queue of maintenance.
        unacknowledged: The messages that workers of kvworker have taken from this broker and not acknowledged; None on
            RabbitMQ, where only its management tells.
        oldest_unacknowledged_seconds: The time since the first of them was taken.
    """

    queues: tuple[QueueState, ...]
    unacknowledged: int | None = None
    oldest_unacknowledged_seconds: float | None = None


def read_queues(settings: Settings) -> BrokerState:
    """Read the state of the queues from the broker.

    Raises:
        Exception: Whatever kombu and its transports raise if the broker cannot be reached.
    """
    app = make_celery(settings)
    names = (settings.queue.queue_name, settings.queue.maintenance_queue_name)
    with app.connection_for_write(heartbeat=0) as connection:
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        if not speaks_redis(settings.queue.broker_url):
            return BrokerState(tuple(_declared(connection, name) for name in names))
        return _RedisQueues(app, connection.default_channel).read(names, settings.queue.max_message_bytes)


def _declared(connection: Any, name: str) -> QueueState:
    with connection.channel() as channel:
        try:
            found = channel.queue_declare(name, passive=True)
        except connection.channel_errors:
            return QueueState(name, 0, consumers=0)  # The queue does not exist.
    return QueueState(name, int(found.message_count), consumers=int(found.consumer_count))


class _RedisQueues:
    """The queues of a Redis broker, as kombu's channel stores them."""

    def __init__(self, app: Celery, channel: Any) -> None:
        self._app = app
        self._channel = channel

    def read(self, names: tuple[str, ...], max_bytes: int) -> BrokerState:
        pool = self._channel.pool
        # Use a separate connection: kombu's client adds the prefix of keys to some commands and not to others.
        connection = pool.connection_class(**pool.connection_kwargs)
        try:
            connect(connection)
            return self._read(connection, names, max_bytes)
        finally:
            connection.disconnect()

    def _read(self, connection: RedisConnection, names: tuple[str, ...], max_bytes: int) -> BrokerState:
        lists = [(name, self._key(name, priority)) for name in names for priority in self._channel.priority_steps]
        lengths = self._exchange(connection, *(("LLEN", key) for _, key in lists))
        now = self._times()
        depths, ages = dict.fromkeys(names, 0), {name: list[float]() for name in names}
        for (name, key), length in zip(lists, lengths, strict=True):
            depths[name] += length
            ages[name] += _ages(self._tail(connection, key, length), now, max_bytes)
        count, oldest, clock = self._exchange(
            connection,
            ("HLEN", self._prefixed(self._channel.unacked_key)),
            ("ZRANGE", self._prefixed(self._channel.unacked_index_key), 0, 0, "WITHSCORES"),
            ("TIME",),
        )
        queues = (QueueState(name, depths[name], max(ages[name], default=None)) for name in names)
        return BrokerState(tuple(queues), count, _taken_seconds(oldest, clock) if count else None)

    def _key(self, name: str, priority: int) -> str:
        return self._prefixed(self._channel._q_for_pri(name, priority))

    def _prefixed(self, key: str) -> str:
        return f"{self._channel.global_keyprefix}{key}"

    def _times(self) -> Mapping[str, float]:
        """Return the time by the clock of each kind of header: calls' deadlines are by that of the results' server."""
        local = time.time()
        try:
            return {"deadline": self._app.backend.server_time(), "sent": local}
        except (RedisError, OSError):
            return {"deadline": local, "sent": local}

    def _tail(self, connection: RedisConnection, key: str, length: int) -> Iterator[bytes]:
        looked_bytes = 0
        for place in range(min(length, _MOST_LOOKED_AT)):
            (item,) = self._exchange(connection, ("LINDEX", key, -1 - place))
            if item is None:
                return
            yield item
            looked_bytes += len(item)
            if looked_bytes > _MOST_BYTES:
                return

    def _exchange(self, connection: RedisConnection, *commands: tuple[Any, ...]) -> list[Any]:
        return exchange(connection, connection.pack_commands(commands), replies=len(commands))


def _ages(items: Iterator[bytes], now: Mapping[str, float], max_bytes: int) -> list[float]:
    """Return the age of the first of these messages that tells when it was sent."""
    for item in items:
        waiting = _waiting(item, max_bytes)
        half_time, deadline, sent = (waiting.get(name) for name in ("half_time", "deadline", "sent"))
        if is_time(half_time) and is_time(deadline):
            # The sender had twice as long at the beginning as at half time.
            return [max(0.0, now["deadline"] - (2 * half_time - deadline))]
        if is_time(sent):
            return [max(0.0, now["sent"] - sent)]
    return []


def _waiting(item: bytes, max_bytes: int) -> Mapping[str, Any]:
    """Return the header of a message that tells how long it may wait. Anyone may have written the message."""
    if problem_of_item(item, max_bytes) is not None:
        return {}
    try:
        waiting = loads(item)["headers"][WAITING]
    except Exception:  # noqa: BLE001 - each tagged type of kombu's JSON raises its own errors
        return {}
    return waiting if isinstance(waiting, dict) else {}


def _taken_seconds(oldest: list[Any], clock: list[Any]) -> float | None:
    # By the newer protocol of Redis, each pair is a list.
    *_, taken_at = oldest[0] if oldest and isinstance(oldest[0], list) else oldest or [None]
    return None if taken_at is None else max(0.0, int(clock[0]) + int(clock[1]) / 1e6 - float(taken_at))
