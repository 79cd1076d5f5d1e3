"""Checks of a message's envelope, which is all that surrounds its body. Pure.

Anyone who reaches the broker can write anything there. kombu and Celery trust an envelope, and whatever they raise over
it ends a worker. So our transports check each one before they hand it on. Each check returns a description of the
problem that does not quote the message, or None for a sound message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.json import loads

from kvworker.model import depth_of

#: Levels of lists and objects in an envelope. The body is text, so it adds none.
MAX_DEPTH: Final = 32
#: The longest name of a message or of its address.
MAX_NAME_CHARACTERS: Final = 255
#: The text encodings that Celery uses. Python's codecs include decompressors, such as bz2.
_ENCODINGS: Final = frozenset({"utf-8", "us-ascii", "binary"})
#: The limit of clocks, which workers count up and send to each other. One that is too large cannot be sent.
_MAX_CLOCK: Final = 2**53


def problem_of_item(data: bytes, max_bytes: int) -> str | None:
    """Check data from a queue or a channel, as far as that is possible without decoding most messages.

    Args:
        data: The message as text.
        max_bytes: The size beyond which it is refused.
    """
    if len(data) > max_bytes:
        return f"it has {len(data)} bytes, more than queue.max_message_bytes"
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return None
    return problem_of_json(data)


def problem_of_json(data: bytes) -> str | None:
    """Check data from a channel by decoding it."""
    try:
        message = loads(data)
        is_deep = depth_of(message, MAX_DEPTH) > MAX_DEPTH
    except Exception as error:  # noqa: BLE001 - each tagged type of kombu's JSON raises its own errors
        return f"it cannot be decoded ({type(error).__name__})"
    return f"it is nested deeper than {MAX_DEPTH} levels" if is_deep else problem_of_message(message)


def problem_of_message(message: object) -> str | None:
    """Check the shape of a decoded message."""
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(properties, dict):
        return "it is not a message"
    if not isinstance(message.get("headers", {}), dict):
        return "its headers are not an object"
    if not isinstance(message.get("body"), str) or properties.get("body_encoding") not in (None, "base64"):
        return "its body is not text"
    is_addressed = is_name(properties.get("delivery_tag")) and _is_address(properties.get("delivery_info"))
    return None if is_addressed else "it has no delivery tag or no address"


def _is_address(delivery: object) -> bool:
    if not isinstance(delivery, dict):
        return False
    return all(delivery.get(name) == "" or is_name(delivery.get(name)) for name in ("exchange", "routing_key"))


def problem_of_content(headers: Mapping[str, Any], content_encoding: object) -> str | None:
    """Check that a body does not expand when it is decoded, and that a worker may adopt the message's clock.

    Args:
        headers: The message's headers.
        content_encoding: The encoding of its body.
    """
    if headers.get("compression"):
        return "it is compressed"
    if content_encoding and not (isinstance(content_encoding, str) and content_encoding.lower() in _ENCODINGS):
        return "its content encoding is not UTF-8"
    clock = headers.get("clock") or 0
    return None if isinstance(clock, int) and 0 <= clock < _MAX_CLOCK else "its clock is not a small integer"


def is_name(name: object) -> bool:
    """Tell whether this is text that a key of Redis and a line of a log can hold."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable()
