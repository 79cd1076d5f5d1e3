"""kombu's AMQP transport with checked messages, as subclasses that only our own applications use.

Anyone who reaches RabbitMQ can send properties, headers and a routing key that it delivers and py-amqp cannot decode.
py-amqp then raises in a worker's main process, before anything can refuse the message. The worker ends, and so does the
next one that RabbitMQ hands the message to. So the unreadable part is replaced by a mark, for which a consumer refuses
the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from amqp import spec
from amqp.abstract_channel import AbstractChannel
from amqp.exceptions import AccessRefused
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic
from kombu.transport import pyamqp

from kvworker.messaging.checked_message import CheckedMessage
from kvworker.messaging.envelope import MAX_DEPTH
from kvworker.model import depth_of

#: Seconds between heartbeats of a worker's connection. RabbitMQ advises 5 to 20; fewer take a busy process for dead.
HEARTBEAT_SECONDS: Final = 10
#: The longest wait for RabbitMQ's answer: as long as a connection may be without a heartbeat.
_ANSWER_SECONDS: Final = 2 * HEARTBEAT_SECONDS
#: The same for the answer to the end of a channel or a connection, which nothing depends on.
_CLOSE_SECONDS: Final = 2.0
#: The frame with a message's properties, and where they begin in it.
_HEADER_FRAME: Final = 2
_PROPERTIES_AT: Final = 12
#: A header frame that is shorter cannot nest deeper than 320 levels, which is harmless. Our own are shorter.
_LONG_HEADER_BYTES: Final = 1600
#: In place of the content encoding of a message that is unreadable otherwise.
_UNREADABLE: Final = "unreadable"
_UNREADABLE_PROPERTIES: Final = b"\x40\x00" + bytes([len(_UNREADABLE)]) + _UNREADABLE.encode()


class AmqpMessage(pyamqp.Message, CheckedMessage):
    """A message from RabbitMQ that refuses to decode a possible decompression bomb."""

    def __init__(self, msg: Any, channel: Any = None, **parts: Any) -> None:
        is_unreadable = msg.properties.get("content_encoding") == _UNREADABLE
        problem = "its properties or its address cannot be decoded" if is_unreadable else None
        limit = channel.connection.client.transport_options["max_message_bytes"]
        pyamqp.Message.__init__(self, msg, channel, max_bytes=limit, problem=problem, **parts)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Reject the message, unless its consumer acknowledges none.

        Fault in kombu 5.7.0: only ``ack`` makes this exception. RabbitMQ closes the channel of a control message that
        is rejected, which ends the worker. Not reported upstream.
        """
        if self.delivery_info["consumer_tag"] not in self.channel.no_ack_consumers:
            super().reject(requeue)


class _BoundedWait(AbstractChannel):
    """A channel, or a connection as its own channel 0, that does not wait forever for an answer.

    py-amqp would: for the confirm of a worker's own message, the declaration of a queue, or the end of a connection.
    """

    def wait(self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False) -> Any:  # noqa: FBT001, FBT002 - py-amqp's signature
        """Wait for one of these methods, and raise TimeoutError after a while without any answer."""
        limit = _CLOSE_SECONDS if self.is_closing else _ANSWER_SECONDS
        return super().wait(method, callback, timeout or limit, returns_tuple)


class AmqpChannel(_BoundedWait, pyamqp.Channel):
    """A channel that receives checked messages."""

    Message = AmqpMessage

    def dispatch_method(self, method_sig: tuple[int, int], payload: Any, content: Any) -> Any:
        """Dispatch a method, and deliver a message without its address if that is not UTF-8."""
        try:
            return super().dispatch_method(method_sig, payload, content)
        except UnicodeDecodeError:
            if method_sig != spec.Basic.Deliver or content.delivery_info is not None:
                raise
            content.properties = {"content_encoding": _UNREADABLE}
            return super().dispatch_method(method_sig, _without_address(payload), content)


class AmqpConnection(_BoundedWait, pyamqp.Connection):
    """A connection with our channels, which survives any message."""

    Channel = AmqpChannel

    def __init__(self, url_file: Any = None, **options: Any) -> None:  # noqa: ARG002 - the transport has used it
        super().__init__(frame_handler=_surviving_frame_handler, **options)


class _RereadLogin(pyamqp.Transport):
    """Logs in with the user and the password that a file holds now, if the transport options name one: ``url_file``."""

    Connection = AmqpConnection

    def establish_connection(self) -> Any:
        """Connect, and log in with the file's credentials, or else with the last ones that RabbitMQ accepted."""
        file = self.client.transport_options.get("url_file")
        if file is None:
            return super().establish_connection()
        refused: AccessRefused | None = None
        for credentials in file.attempts():
            self.client.userid, self.client.password = credentials.username, credentials.password
            try:
                connection = super().establish_connection()
            except AccessRefused as error:
                refused = error
                continue
            file.accept(credentials)
            return connection
        assert refused is not None  # noqa: S101 - there is at least one attempt
        raise refused


class AmqpTransport(_RereadLogin, pyamqp.Transport):
    """kombu's AMQP transport with our connection."""


class AmqpTlsTransport(_RereadLogin, pyamqp.SSLTransport):
    """kombu's AMQP transport over TLS with our connection."""


def _surviving_frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """Return py-amqp's frame handler, extended to mark a message whose properties are unreadable."""
    handle = frame_handler(connection, callback)

    def handle_or_mark(frame: tuple[int, int, bytes]) -> bool:
        """Handle a frame. After an error in a header, py-amqp still expects the header."""
        kind, _, data = frame
        if kind == _HEADER_FRAME and len(data) > _LONG_HEADER_BYTES and not _is_readable(data):
            return bool(handle(_marked(frame)))
        try:
            return bool(handle(frame))
        except Exception:
            if kind != _HEADER_FRAME or _is_readable(data):
                raise
            return bool(handle(_marked(frame)))

    return handle_or_mark


def _marked(frame: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    kind, channel, data = frame
    return kind, channel, data[:_PROPERTIES_AT] + _UNREADABLE_PROPERTIES


def _is_readable(header: bytes) -> bool:
    try:
        properties, _ = decode_properties_basic(header, _PROPERTIES_AT)
    except Exception:  # noqa: BLE001 - each type of AMQP's raises its own errors
        return False
    return depth_of(properties.get("application_headers"), MAX_DEPTH) <= MAX_DEPTH


def _without_address(delivery: bytes) -> bytes:
    """Empty exchange and routing key: the last parts, after the consumer's tag, the delivery's tag and a byte."""
    end = 4 + 1 + delivery[4] + 8 + 1
    return delivery[:end] + b"\0\0"
