"""kombu's Redis transport with fewer ways to end a worker, as subclasses that only our own applications use.

A host program's own Celery application gets the stock classes, in the same process too: ``BrokerConnection`` in
``kvworker.messaging.application`` selects these. Each method that works around a fault names it, with the upstream
report and kombu's version. ``tests/unit/messaging/test_redis_transport.py`` shows each fault with the stock class, so
it fails when a release no longer needs the method.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from queue import Empty
from types import MappingProxyType
from typing import Any

from kombu.transport.redis import Channel, Transport
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from kvworker.fork_safety import with_own_property_locks

logger = logging.getLogger(__name__)

_REFUSED_PAUSE_SECONDS = 1.0


@with_own_property_locks
class RedisChannel(Channel):
    """A channel that turns faults of a broker or of a message into errors that a consumer survives.

    Attributes:
        connection_parameters: A transport option: more arguments for redis-py's connections, with their types. kombu
            hands a URL's parameters to its own ``Connection``, which fails, or leaves them text.
    """

    from_transport_options = (*Channel.from_transport_options, "connection_parameters")
    connection_parameters: Mapping[str, Any] = MappingProxyType({})
    _pool_client: Any = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        """Report a closed channel as a lost connection.

        Fault in kombu 5.7.0: after a broker restart, a closed channel is asked for its connection parameters and
        raises AttributeError (``NoneType`` has no ``client``, or no ``hostname``). Celery does not treat that as a
        lost connection, so the worker exits with code 1. Reported as celery/kombu#582, which was closed.
        """
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the channel is closed")
        return {**super()._connparams(asynchronous), **self.connection_parameters}

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Return one client for each pool of connections.

        Fault in kombu 5.7.0: it makes a Redis client for each publish, delivery and acknowledgement, which takes two
        fifths of a publish's time. Not reported upstream.
        """
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._pool_client is None or self._pool_client.connection_pool is not self.pool:
            self._pool_client = super()._create_client()
        return self._pool_client

    def _brpop_read(self, **options: Any) -> Any:
        """Survive an item that cannot be decoded, and a broker that refuses to deliver.

        Fault in kombu 5.7.0: both errors end the worker's main process. A refusal is recoverable: the server may
        have become a replica, or the key may be of another type. So it counts as a lost connection, after a pause.
        The refusal by a replica is reported as celery/celery#7946. An item that is not JSON is reported only for the
        SQS transport, as celery/kombu#2421.
        """
        try:
            return super()._brpop_read(**options)
        except ValueError as error:
            # A traceback could show the item.
            logger.error("an item that cannot be decoded is dropped from a queue: %s", type(error).__name__)  # noqa: TRY400
            raise Empty from None
        except ResponseError as error:
            logger.error("the broker refuses to hand out messages, trying again: %s", error)  # noqa: TRY400
            time.sleep(_REFUSED_PAUSE_SECONDS)
            raise RedisConnectionError(str(error)) from None


@with_own_property_locks
class RedisTransport(Transport):
    """kombu's Redis transport with our channel."""

    Channel = RedisChannel

    def _deliver(self, message: Any, queue: str) -> None:
        """Drop an item that is JSON but not a message, with a log line that does not show it.

        Fault in kombu 5.7.0: such an item raises KeyError or TypeError in the worker's main process and ends it.
        Not reported upstream for Redis.
        """
        if _is_message(message):
            super()._deliver(message, queue)
        else:
            logger.error("an item that is not a message is dropped from the queue %s", queue)


def _is_message(message: Any) -> bool:
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(properties, dict) or not isinstance(message.get("headers", {}), dict):
        return False
    if not isinstance(message.get("body"), str) or properties.get("body_encoding") not in (None, "base64"):
        return False
    delivery = properties.get("delivery_info")
    return isinstance(properties.get("delivery_tag"), str) and isinstance(delivery, dict) and "exchange" in delivery
