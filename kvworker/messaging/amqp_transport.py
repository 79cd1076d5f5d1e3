"""kombu's AMQP transport with checked messages, as subclasses that only our own applications use."""

from __future__ import annotations

from typing import Any

from kombu.transport import pyamqp

from kvworker.messaging.checked_message import CheckedMessage


class AmqpMessage(pyamqp.Message, CheckedMessage):
    """A message from RabbitMQ that does not decode what may be a decompression bomb."""

    def __init__(self, msg: Any, channel: Any = None, **parts: Any) -> None:
        limit = channel.connection.client.transport_options["max_message_bytes"]
        pyamqp.Message.__init__(self, msg, channel, max_bytes=limit, **parts)


class AmqpChannel(pyamqp.Channel):
    """A channel that receives checked messages."""

    Message = AmqpMessage


class AmqpConnection(pyamqp.Connection):
    """A connection with our channels."""

    Channel = AmqpChannel


class AmqpTransport(pyamqp.Transport):
    """kombu's AMQP transport with our connection."""

    Connection = AmqpConnection


class AmqpTlsTransport(pyamqp.SSLTransport):
    """kombu's AMQP transport over TLS with our connection."""

    Connection = AmqpConnection
