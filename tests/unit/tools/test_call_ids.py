"""The operation id of a call that already has an id in a model's protocol."""

from __future__ import annotations

import pytest

from kvworker.model import check_operation_id
from kvworker.tools import TOOLS, with_call_id

_SET = TOOLS["kv_set"]


def _key(call_id: str | None, scope: str | None = None) -> object:
    return with_call_id(_SET, {"namespace": "n"}, call_id, scope=scope).get("idempotency_key")


@pytest.mark.parametrize("name", list(TOOLS))
def test_only_writes_get_an_id(name: str) -> None:
    given = with_call_id(TOOLS[name], {"namespace": "n"}, "call-1")
    assert given == {"namespace": "n", **({"idempotency_key": "call-1"} if TOOLS[name].writes else {})}


def test_the_models_own_key_stays_and_null_is_none() -> None:
    assert with_call_id(_SET, {"idempotency_key": "own"}, "call-1") == {"idempotency_key": "own"}
    assert with_call_id(_SET, {"idempotency_key": None}, "call-1") == {"idempotency_key": "call-1"}


@pytest.mark.parametrize("call_id", [None, "", " "])
def test_a_call_without_an_id_gets_none(call_id: str | None) -> None:
    assert _key(call_id) is None


def test_ids_of_different_scopes_are_different() -> None:
    assert _key("call-1", "thread") == "thread/call-1"
    pairs = [("call-1", None), ("c", "a/b"), ("b/c", "a"), ("c", "a%2Fb"), ("c", ""), ("c", "\ud800")]
    assert len({_key(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("call_id", ["x" * 256, "a\x00b", "half \ud83d a pair"])
def test_an_id_that_the_store_does_not_accept_is_hashed(call_id: str) -> None:
    key = _key(call_id)
    assert check_operation_id(key) == key == _key(call_id) != _key(call_id + "x")
