"""The lines of standard input: anything but a message gets the protocol's error, with the id if it can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter

from kvworker.integrations.mcp.stdin import refusal_of

REQUEST = b'{"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": {"t": "T"}}}'


def deep(levels: int) -> bytes:
    return b'{"a": ' * levels + b"1" + b"}" * levels


NO_JSON = {
    "broken": (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"a": }}', 7),
    "cut": (b'{"jsonrpc": "2.0", "id": "x", "method": "tools/c', "x"),
    "cut before the id": (b'{"jsonrpc": "2.0", "method": "tools/call", "i', None),
    "id behind the fault": (b'{"jsonrpc": oops, "id": 7}', None),
    "half a character": (REQUEST.replace(b"T", b"\xf0\x9f"), 7),
    "half a character in the id": (REQUEST.replace(b"7", b'"\xf0\x9f"'), None),
    "half a pair": (REQUEST.replace(b"T", rb"\ud83d"), 7),
    "half a pair in the id": (REQUEST.replace(b"7", rb'"\ud83d"'), None),
    "Latin-1": (REQUEST.replace(b"T", "é".encode("latin-1")), 7),
    "UTF-16": (REQUEST.decode().encode("utf-16"), None),
    "byte order mark": (b"\xef\xbb\xbf" + REQUEST, 7),
    "300 levels": (REQUEST.replace(b'"T"', deep(300)), 7),
    "200,000 levels": (b'{"id": 7, "params": ' + b"[" * 200_000, 7),
    "only brackets": (b"[" * 200_000, None),
    "text": (b"hello", None),
    "two messages": (REQUEST + REQUEST, 7),
    "name without quotes": (b"{id: 7}", None),
    "list as a name": (b'{[1]: 2, "id": 7}', 7),
}
NO_MESSAGE = {
    "no object": (b"5", None),
    "batch": (b"[" + REQUEST + b"]", None),
    "other version": (REQUEST.replace(b'"2.0"', b'"1.0"'), 7),
    "no version": (b'{"id": 7, "method": "ping"}', 7),
    "no method": (b'{"jsonrpc": "2.0", "id": 7}', 7),
    "params that are a list": (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": [1]}', 7),
    "id is a fraction": (REQUEST.replace(b"7", b"7.5"), None),
    "id is true": (REQUEST.replace(b"7", b"true"), None),
    "id is null": (REQUEST.replace(b"7", b"null"), None),
    "id is a list": (REQUEST.replace(b"7", b"[7]"), None),
    "response whose id is one of ours": (b'{"jsonrpc": "2.0", "id": 7, "result": 5}', None),
    "error whose id is one of ours": (b'{"jsonrpc": "2.0", "id": 7, "error": 5}', None),
}


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [(*case, PARSE_ERROR) for case in NO_JSON.values()] + [(*case, INVALID_REQUEST) for case in NO_MESSAGE.values()],
    ids=[*NO_JSON, *NO_MESSAGE],
)
def test_a_line_that_is_no_message_is_refused(line: bytes, number: object, code: int) -> None:
    refusal = refusal_of(line + b"\n")
    assert refusal is not None
    assert (refusal.id, refusal.error.code) == (number, code)
    answer = json.loads(refusal.model_dump_json(by_alias=True, exclude_unset=True))
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == number


@pytest.mark.parametrize(
    "line",
    [
        REQUEST,
        REQUEST + b"\r",
        b" " + REQUEST,
        REQUEST.replace(b"T", "😀".encode()),
        REQUEST.replace(b"T", rb"\ud83d\ude00"),
        REQUEST.replace(b'"T"', deep(100)),
        REQUEST.replace(b"7", b'"seven"'),
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        b'{"jsonrpc": "2.0", "id": 7, "result": {}}',
        b"",
        b"  \r",
    ],
)
def test_messages_and_blank_lines_pass(line: bytes) -> None:
    assert refusal_of(line + b"\n") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={"jsonrpc": st.just("2.0") | JSON, "id": st.integers() | JSON, "method": st.text() | JSON, "params": JSON},
)


@given(members=MEMBERS, cut=st.none() | st.integers(0, 80), noise=st.binary(max_size=3))
def test_any_line_is_a_message_or_gets_an_answer_that_can_be_sent(
    members: dict[str, Any], cut: int | None, noise: bytes
) -> None:
    text = json.dumps(members).encode()
    line = (text if cut is None else text[:cut] + noise + text[cut:]).replace(b"\n", b"")
    refusal = refusal_of(line)
    if refusal is not None:
        assert refusal.model_dump_json(by_alias=True, exclude_unset=True)
    elif line.strip():
        jsonrpc_message_adapter.validate_json(line, by_name=False)
