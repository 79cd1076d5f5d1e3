"""The bytes on the wire, which clients and workers of other versions read."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from kombu.utils.json import dumps

from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.wire import encode_request
from kvworker.settings import Settings
from kvworker.tools import TOOLS, check_arguments

SIGNER = MessageSigner(Settings.from_mapping({"policies": {"signing_key": "k" * 32, "personas": {"p": {}}}}).policies)


class Case(NamedTuple):
    tool: str
    arguments: dict[str, Any]
    #: The arguments on the wire.
    body: str
    signature: str


def literal(text: str) -> str:
    """The form of a value that kombu would mistake for one of its types."""
    return f'{{"__type__": "kvworker.literal", "__value__": {json.dumps(text)}}}'


def set_case(value: object, wire_value: str, signature: str) -> Case:
    body = f'"namespace": "n", "key": "k", "value": {wire_value}'
    return Case("kv_set", {"namespace": "n", "key": "k", "value": value}, body, signature)


def batch_case(operations: list[dict[str, Any]], wire_operations: str, signature: str) -> Case:
    body = f'"namespace": "n", "operations": {wire_operations}'
    return Case("kv_batch", {"namespace": "n", "operations": operations}, body, signature)


CASES = {
    "null": set_case(None, "null", "13737c13c6edfe436cbfadc98c5b39cbfa83ee9c7d8339763411fd3cbd83f4fa"),
    "text": set_case('é" \n', r'"\u00e9\" \n"', "7408f027fe172e6a9b59793a1aadce0c82f99fab49f2fa02609cea79994f0cd8"),
    "text that is the tag": set_case(
        "__type__", '"__type__"', "865b31d02ea3bd7ca9f87e17ec36d5040ad8d4169243bb9255aa5e54f080d789"
    ),
    "numbers": set_case(
        [1, 1.0, -0.0, 1e100, 2**70, True],
        "[1, 1.0, -0.0, 1e+100, 1180591620717411303424, true]",
        "1d6bfb596bb0d0f4938f75167a98f0195d795dddfe261b0b5868e0b8bddc5804",
    ),
    "quoted tag": set_case(
        ['"__type__"'], r'["\"__type__\""]', "10cdd464dcec3ebc08d9e0568bcfcc52823cb261e4b1168f13e11f82b7a1a7c3"
    ),
    "tagged": set_case(
        {"__type__": "datetime", "__value__": "é"},
        literal('{"__type__":"datetime","__value__":"é"}'),
        "1cbd9972f5ed7a4b79b26ea032f6fc971744638fcba28f267f9cec16b9a52ece",
    ),
    "tag in a list": set_case(
        [["__type__"]], literal('[["__type__"]]'), "3513ba1cfd063c552c74f194b12edacb239bdbfb9cff6e329d9ea21bfef2aa99"
    ),
    "batch": batch_case(
        [{"tool": "kv_set", "key": "a", "value": {"x": [None, "é"]}, "ttl_seconds": 1}, {"tool": "kv_get", "key": "b"}],
        r'[{"tool": "kv_set", "key": "a", "value": {"x": [null, "\u00e9"]}, "ttl_seconds": 1.0},'
        ' {"tool": "kv_get", "key": "b"}]',
        "5543d719ce86ad782d07c77eb99143be05c4a0ead2e8d2c7917b2a0107bc2ef8",
    ),
    "tagged batch": batch_case(
        [{"tool": "kv_delete", "key": "é"}, {"tool": "kv_set", "value": {"__type__": "bytes"}, "key": "a"}],
        literal('[{"tool":"kv_delete","key":"é"},{"tool":"kv_set","key":"a","value":{"__type__":"bytes"}}]'),
        "a373f469498529ec0eaaafa738aff5668dcf64b04de658f272043bf1eb9ce27b",
    ),
    "text that is the tag in a batch": batch_case(
        [{"tool": "kv_set", "key": "a", "value": "__type__"}],
        literal('[{"tool":"kv_set","key":"a","value":"__type__"}]'),
        "2134b70bb1493d08a3fc8131476ac98fb1d9bd6ea94bbafed981a06bb3b3ef99",
    ),
    "key that is the tag in a batch": batch_case(
        [{"tool": "kv_get", "key": "__type__"}],
        literal('[{"tool":"kv_get","key":"__type__"}]'),
        "7de383c88d1d9a3830ef9e1b53dc0b7a6caf5bb8c26602cdced56a23ed7267d1",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_wire_format_does_not_change(case: Case) -> None:
    tool = TOOLS[case.tool]
    payload = encode_request(check_arguments(tool, case.arguments), deadline=12.5, persona="p")
    body = f'{case.body}, "v": 1, "deadline": 12.5, "persona": "p"'
    assert dumps(payload) == f"{{{body}}}"
    signed = SIGNER.sign(tool, payload, operation_id="t")
    assert dumps(signed) == f'{{"idempotency_key": "t", {body}, "signature": "{case.signature}"}}'
