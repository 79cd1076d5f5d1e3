"""Messages that an attacker on RabbitMQ may send to a worker, in AMQP's own encoding too."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, Final, NamedTuple

import amqp

from tests.support.hostile import TAGS
from tests.support.malformed import VALID_BODY

_CONTROL: Final = "celery.pidbox"
_JSON: Final = {"content_type": "application/json", "content_encoding": "utf-8"}
_HEADERS: Final = {"task": "kvworker.kv_set", "id": "by-hand", "lang": "py"}
_NOT_UTF8: Final = b"\xff\xfe"
_BOMB: Final = zlib.compress(b" " * 100_000_000)


class HostileMessage(NamedTuple):
    """A message to publish.

    Attributes:
        body: The body.
        properties: The properties, or their encoded form.
        exchange: Where it is published.
        routing_key: Its routing key.
    """

    body: bytes = json.dumps(VALID_BODY).encode()
    properties: dict[str, Any] | bytes = b"\0\0"
    exchange: str = "kv"
    routing_key: str | bytes = "kv"


class _EncodedMessage(amqp.Message):
    encoded = b""

    def _serialize_properties(self) -> bytes:
        return self.encoded


def publish(channel: Any, message: HostileMessage) -> None:
    """Publish a message, and await the broker's confirm."""
    if isinstance(message.properties, bytes):
        sent = _EncodedMessage(message.body)
        sent.encoded = message.properties
    else:
        sent = amqp.Message(message.body, **message.properties)
    channel.basic_publish(sent, exchange=message.exchange, routing_key=message.routing_key)


def _short(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _text(data: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(data)) + data


def _nested(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


def _with_header(value: bytes, name: bytes = b"x") -> bytes:
    """Encode the properties of a valid ``kv_set`` message with one more header."""
    pairs = [*((key.encode(), _text(text.encode())) for key, text in _HEADERS.items()), (name, value)]
    table = b"".join(_short(key) + item for key, item in pairs)
    return b"\xe0\x00" + _short(b"application/json") + _short(b"utf-8") + struct.pack(">I", len(table)) + table


def _with_headers(**headers: Any) -> HostileMessage:
    return HostileMessage(properties={**_JSON, "application_headers": {**_HEADERS, **headers}})


def _command(body: object, **headers: Any) -> HostileMessage:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HostileMessage(encoded, {**_JSON, "application_headers": headers}, _CONTROL, "")


def _encoded_as(content_type: str, encoding: str, body: bytes = b"") -> HostileMessage:
    properties = {"content_type": content_type, "content_encoding": encoding, "application_headers": _HEADERS}
    return HostileMessage(body, properties)


#: Messages that a worker refuses with one log line. The exchange ``any`` sends to the queue ``kv`` whatever the key.
REFUSED: Final[dict[str, HostileMessage]] = {
    **{
        f"a tagged {tag}": HostileMessage(json.dumps({"__type__": tag, "__value__": []}).encode(), _JSON)
        for tag in TAGS
    },
    "no properties": HostileMessage(),
    "no body": HostileMessage(b"", {**_JSON, "application_headers": _HEADERS}),
    "brackets": HostileMessage(b"[" * 200_000, _JSON),
    "brackets with headers": HostileMessage(b"[" * 200_000, {**_JSON, "application_headers": _HEADERS}),
    "headers of 500 levels": HostileMessage(properties=_with_header(_nested(500))),
    "headers of 20,000 levels": HostileMessage(properties=_with_header(_nested(20_000))),
    "a time that no calendar has": HostileMessage(properties=_with_header(b"T" + b"\xff" * 8)),
    "a header name that is not UTF-8": HostileMessage(properties=_with_header(b"V", _NOT_UTF8)),
    "an id that is not UTF-8": HostileMessage(properties=_with_header(_text(_NOT_UTF8), b"id")),
    "a task that is not UTF-8": HostileMessage(properties=_with_header(_text(_NOT_UTF8), b"task")),
    "a content type that is not UTF-8": HostileMessage(properties=b"\x80\x00" + _short(_NOT_UTF8)),
    "the same without a body": HostileMessage(b"", b"\x80\x00" + _short(_NOT_UTF8)),
    "a correlation id that is not UTF-8": HostileMessage(properties=b"\x04\x00" + _short(_NOT_UTF8)),
    "a routing key that is not UTF-8": _with_headers()._replace(exchange="any", routing_key=_NOT_UTF8),
    "a decimal number of retries": HostileMessage(properties=_with_header(b"D\0\0\0\0\1", b"retries")),
    "a decimal clock": HostileMessage(properties=_with_header(b"D\1\0\0\0\1", b"clock")),
    "a time that is not text": HostileMessage(properties=_with_header(b"T" + b"\0" * 8, b"eta")),
    "a compressed body": _with_headers(compression="application/x-gzip")._replace(body=_BOMB),
    "an encoding that decompresses": _encoded_as("application/text", "zlib", _BOMB),
    "an encoding that is none": _encoded_as("application/json", "no-such"),
    "a content type that runs code": _encoded_as("application/x-python-serialize", "binary"),
    "a large message": _with_headers()._replace(body=b"x" * 1_000_001),
    "a command that is null": _command(None),
    "a command that is a list": _command(["the-secret"]),
    "a command that is not JSON": _command(b"{the-secret"),
    "a command that is a tag": _command(b'{"__type__":"uuid","__value__":5}'),
    "a deep command": _command(b"[" * 200_000),
    "a command without a body": _command(b""),
    "a command with a routing key that is not UTF-8": _command({"method": "ping"})._replace(routing_key=_NOT_UTF8),
    "a command with deep headers": _command({})._replace(properties=_with_header(_nested(20_000))),
    "a compressed command": _command({}, compression="application/x-gzip"),
    "a command with a huge clock": _command({"method": "ping"}, clock=10**18),
    "a command without a method": _command({}),
    "an unknown command": _command({"method": "the-secret"}),
    "arguments that are a list": _command({"method": "revoke", "arguments": ["the-secret"]}),
    "unknown arguments": _command({"method": "revoke", "arguments": {"the-secret": 1}}),
    "an argument of a wrong type": _command({"method": "revoke", "arguments": {"task_id": [["the-secret"]]}}),
    "a destination that is a number": _command({"method": "ping", "destination": 5}),
    "a broken pattern": _command({"method": "ping", "pattern": "(", "matcher": "pcre"}),
    "an unknown matcher": _command({"method": "ping", "pattern": "x", "matcher": "the-secret"}),
    "an answer to text": _command({"method": "ping", "reply_to": "the-secret"}),
    "an answer to a durable exchange": _command({"method": "ping", "reply_to": {"exchange": "kv", "routing_key": "x"}}),
    "a queue that is a number": _command({"method": "add_consumer", "arguments": {"queue": 5}}),
    "an exchange of an unknown type": _command(
        {"method": "add_consumer", "arguments": {"queue": "q", "exchange": "x", "exchange_type": "the-secret"}}
    ),
    "an exchange that is a list": _command({"method": "add_consumer", "arguments": {"queue": "q", "exchange": ["x"]}}),
}
#: Messages that look strange, and are run.
RUN: Final[dict[str, HostileMessage]] = {
    "a header that is not UTF-8": HostileMessage(properties=_with_header(_text(_NOT_UTF8))),
    "headers of 300 levels": HostileMessage(properties=_with_header(_nested(300))),
    "a large decimal header": HostileMessage(properties=_with_header(b"D\xff\x7f\xff\xff\xff")),
    "tagged headers": _with_headers(**{tag: {"__type__": tag, "__value__": ["the-secret"]} for tag in TAGS}),
    "numbers of other types": HostileMessage(properties=_with_header(b"F\0\0\0\0", b"kvworker")),
    "all standard properties": HostileMessage(
        properties={
            **_JSON,
            "application_headers": _HEADERS,
            "priority": 255,
            "timestamp": 2**63,
            **dict.fromkeys(("reply_to", "correlation_id", "app_id", "message_id", "type", "cluster_id"), "the-secret"),
        }
    ),
}
