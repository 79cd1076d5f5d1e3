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
from kombu.transport.virtual import Message
from kombu.utils.encoding import bytes_to_str
from redis import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from kvworker.fork_safety import with_own_property_locks
from kvworker.messaging.checked_message import CheckedMessage
from kvworker.messaging.credentials import login_parameters
from kvworker.messaging.envelope import problem_of_item, problem_of_json, problem_of_message
from kvworker.messaging.sentinel import PrimaryConnection
from kvworker.settings.blocks import MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)

_REFUSED_PAUSE_SECONDS = 1.0


class RedisMessage(Message, CheckedMessage):
    """A message from Redis that refuses to decode a possible decompression bomb."""


@with_own_property_locks
class RedisChannel(Channel):
    """A channel that turns faults of a broker or of a message into errors that a consumer survives.

    Attributes:
        connection_parameters: A transport option: more arguments for redis-py's connections, with their types. kombu
            hands a URL's parameters to its own ``Connection``, which fails, or leaves them text. With ``sentinel``
            among them, connections are to the primary that is named there.
        max_message_bytes: A transport option: the size beyond which a message is dropped, before it is decoded.
    """

    Message = RedisMessage
    from_transport_options = (*Channel.from_transport_options, "connection_parameters", "max_message_bytes")
    connection_parameters: Mapping[str, Any] = MappingProxyType({})
    max_message_bytes = MAX_MESSAGE_BYTES
    _pool_client: Any = None

    @property
    def connection_class(self) -> type[Connection]:
        """The class of connections, except those with TLS or to a Unix socket."""
        return PrimaryConnection if "sentinel" in self.connection_parameters else Connection

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        """Report a closed channel as a lost connection.

        Fault in kombu 5.7.0: after a broker restart, a closed channel is asked for its connection parameters and
        raises AttributeError (``NoneType`` has no ``client``, or no ``hostname``). Celery does not treat that as a
        lost connection, so the worker exits with code 1. Reported as celery/kombu#582, which was closed.
        """
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the channel is closed")
        return login_parameters(super()._connparams(asynchronous), self.connection_parameters)

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Return one client for each pool of connections. The asynchronous one receives, and checks what it receives.

        Fault in kombu 5.7.0: it makes a Redis client for each publish, delivery and acknowledgement, which takes two
        fifths of a publish's time. Not reported upstream.
        """
        if asynchronous:
            client = super()._create_client(asynchronous=True)
            client.set_response_callback("BRPOP", self._checked_item)
            return client
        if self._pool_client is None or self._pool_client.connection_pool is not self.pool:
            self._pool_client = super()._create_client()
        return self._pool_client

    def _checked_item(self, answer: Any, **_: Any) -> Any:
        """Return an answer to BRPOP, or None if its item must not be decoded."""
        problem = problem_of_item(answer[1], self.max_message_bytes) if answer else None
        if problem is None:
            return answer and tuple(answer)
        logger.error("an item is dropped from a queue: %s", problem)
        return None

    def _brpop_read(self, **options: Any) -> Any:
        """Survive an item that cannot be decoded, and a broker that refuses to deliver.

        Fault in kombu 5.7.0: both errors end the worker's main process. A refusal is recoverable: the server may
        have become a replica, or the key may be of another type. So it counts as a lost connection, after a pause.
        The refusal by a replica is reported as celery/celery#7946. An item that is not JSON is reported only for the
        SQS transport, as celery/kombu#2421.
        """
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection_errors):
            raise
        except ResponseError as error:
            self._report_refusal(error)
            raise Empty from None
        except Exception as error:  # noqa: BLE001 - each tagged type of kombu's JSON raises its own errors
            # A traceback could show the item.
            logger.error("an item that cannot be decoded is dropped from a queue: %s", type(error).__name__)  # noqa: TRY400
            raise Empty from None

    def _report_refusal(self, error: ResponseError) -> None:
        """Log that the server hands out no message, and pause.

        Raises:
            redis.exceptions.ConnectionError: Always, so that the consumer connects again.
        """
        logger.error("the broker refuses to hand out messages, trying again: %s", error)
        time.sleep(_REFUSED_PAUSE_SECONDS)
        raise RedisConnectionError(str(error)) from None

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Empty a published message that cannot be read. kombu then ignores it.

        Fault in kombu 5.7.0: decoding it ends the worker's main process, or logs what it holds. Not reported upstream.
        """
        payload = super()._handle_message(client, response)
        data = payload["data"]
        if bytes_to_str(payload["type"]).endswith("message") and data:
            # Few messages are published, so each is decoded twice.
            problem = problem_of_item(data, self.max_message_bytes) or problem_of_json(data)
            if problem is not None:
                logger.error("a published message is dropped: %s", problem)
                payload["data"] = None
        return payload

    def _do_restore_message(self, payload: Any, exchange: Any, routing_key: Any, *arguments: Any) -> None:
        """Put a message back into its queue, and drop a record that holds no message.

        Fault in kombu 5.7.0: the whole record is logged. Not reported upstream.
        """
        problem = problem_of_message(payload)
        if problem is None and isinstance(exchange, str) and isinstance(routing_key, str):
            super()._do_restore_message(payload, exchange, routing_key, *arguments)
        else:
            logger.error("a record of an unacknowledged message is dropped: %s", problem or "its address is not text")


@with_own_property_locks
class RedisTransport(Transport):
    """kombu's Redis transport with our channel."""

    Channel = RedisChannel

    def _deliver(self, message: Any, queue: str) -> None:
        """Drop an item that is JSON but not a message, with a log line that does not show it.

        Fault in kombu 5.7.0: such an item raises KeyError or TypeError in the worker's main process and ends it.
        Not reported upstream for Redis.
        """
        problem = problem_of_message(message)
        if problem is None:
            try:
                super()._deliver(message, queue)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - kombu trusts messages, so it raises anything
                problem = f"kombu cannot take it ({type(error).__name__})"
        if problem is not None:
            logger.error("an item that is not a message is dropped from the queue %s: %s", queue, problem)
