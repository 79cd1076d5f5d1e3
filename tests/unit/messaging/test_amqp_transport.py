"""Whatever properties a message from RabbitMQ has, it is delivered, and marked if they cannot be decoded."""

from __future__ import annotations

from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.method_framing import frame_handler
from hypothesis import given
from hypothesis import strategies as st

from kvworker.messaging.amqp_transport import _surviving_frame_handler
from tests.support.hostile_amqp import REFUSED, RUN

MARK = {"content_encoding": "unreadable"}
ENCODED = {what: sent.properties for what, sent in {**REFUSED, **RUN}.items() if isinstance(sent.properties, bytes)}
UNREADABLE = [what for what in ENCODED if "levels" in what or "calendar" in what or "content type" in what]


def received(properties: bytes, body: bytes = b"body", handler: Any = _surviving_frame_handler) -> list[Any]:
    """Return what a delivery's frames make the handler deliver."""
    contents: list[Any] = []
    handle = handler(SimpleNamespace(bytes_recv=0), lambda *parts: contents.append(parts[-1]))
    handle((1, 1, pack(">HH", 60, 60) + b"\1t" + bytes(8) + b"\0\2kv\2kv"))
    handle((2, 1, pack(">HxxQ", 60, len(body)) + properties))
    if body:
        handle((3, 1, body))
    return contents


@given(flags=st.integers(0, 2**16 - 1), data=st.binary(max_size=80), body=st.binary(max_size=3))
def test_no_properties_stop_the_frames(flags: int, data: bytes, body: bytes) -> None:
    (content,) = received(pack(">H", flags) + data, body)
    assert content.ready
    assert (content.body or b"") == body


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("body", [b"", b"body"])
def test_a_message_with_unreadable_properties_is_marked(what: str, body: bytes) -> None:
    (content,) = received(ENCODED[what], body)
    assert (content.properties == MARK) == (what not in RUN)


def test_py_amqp_raises_for_such_a_message() -> None:
    """If it does not any more, our frame handler can go."""
    with pytest.raises(RecursionError):
        received(ENCODED["headers of 20,000 levels"], handler=frame_handler)
