"""The py-key-value store gives the same results as the library's own ``MemoryStore``."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from key_value.aio.adapters.pydantic import PydanticAdapter
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.wrappers.prefix_collections import PrefixCollectionsWrapper
from key_value.aio.wrappers.prefix_keys import PrefixKeysWrapper

from kvworker import InlineKeyValueStore
from kvworker.integrations.key_value import KvworkerKeyValueStore

Call = tuple[str, tuple[Any, ...], dict[str, Any]]

_keys = st.sampled_from(["a", "A", "ä", "a b", "a::b", "a/b", "%_", " x", "\u20ac", "😀", "H_a", "k" * 1024])
_some_keys = st.lists(_keys, max_size=5)
_collections = st.sampled_from([None, "", "default_collection", "c", "C", "c::d", "%"])
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_values = st.dictionaries(_texts, _json, max_size=3)
#: Long enough not to expire within an example.
_ttls = st.none() | st.sampled_from([3600, 7200.5, 10**6])


def _pairs(pairs: list[tuple[str, Any]]) -> tuple[list[str], list[Any]]:
    return [key for key, _ in pairs], [value for _, value in pairs]


_arguments = {
    "get": _keys.map(lambda key: (key,)),
    "ttl": _keys.map(lambda key: (key,)),
    "delete": _keys.map(lambda key: (key,)),
    "get_many": _some_keys.map(lambda keys: (keys,)),
    "ttl_many": _some_keys.map(lambda keys: (keys,)),
    "delete_many": _some_keys.map(lambda keys: (keys,)),
    "put": st.tuples(_keys, _values),
    "put_many": st.lists(st.tuples(_keys, _values), max_size=5).map(_pairs),
}


@st.composite
def _calls(draw: st.DrawFn) -> Call:
    method = draw(st.sampled_from(sorted(_arguments)))
    options: dict[str, Any] = {"collection": draw(_collections)}
    if method.startswith("put"):
        options["ttl"] = draw(_ttls)
    return method, draw(_arguments[method]), options


def told(outcome: object) -> str:
    """Return a result as text that differs between 1, 1.0 and true, with remaining TTLs in whole minutes."""

    def without_fractions(answer: object) -> object:
        match answer:
            case (dict() as value, float() | int() as ttl):
                return [value, round(ttl / 60)]
            case list() as answers:
                return [without_fractions(each) for each in answers]
            case _:
                return answer

    return json.dumps(without_fractions(outcome), sort_keys=True)


async def outcome_of(store: Any, call: Call) -> object:
    method, arguments, options = call
    return await getattr(store, method)(*arguments, **options)


async def assert_same_content(mine: KvworkerKeyValueStore, reference: MemoryStore) -> None:
    filled = [name for name in await reference.collections() if await reference.keys(name)]
    assert await mine.collections() == sorted(filled, key=str.encode)
    for name in filled:
        assert await mine.keys(name) == sorted(await reference.keys(name), key=str.encode)


_prefixes = (f"{number}/" for number in itertools.count())


@pytest.fixture(scope="module")
def inner() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


@settings(max_examples=60)
@given(calls=st.lists(_calls(), min_size=1, max_size=15))
def test_random_calls_give_the_same_results(inner: InlineKeyValueStore, calls: list[Call]) -> None:
    async def compare() -> None:
        mine = KvworkerKeyValueStore(inner, namespace_prefix=next(_prefixes))
        reference = MemoryStore()
        for call in calls:
            assert told(await outcome_of(mine, call)) == told(await outcome_of(reference, call)), call
        await assert_same_content(mine, reference)

    asyncio.run(compare())


@pytest.mark.parametrize(
    "call",
    [
        ("put", ("k", {"v": object()}), {}),
        ("put", ("k", {1: "one"}), {}),
        ("put", ("k", ["no mapping"]), {}),
        ("put", (1, {}), {}),
        ("put", ("k", {}), {"ttl": 0}),
        ("put", ("k", {}), {"ttl": -100}),
        ("put", ("k", {}), {"ttl": True}),
        ("put_many", (["k"], []), {}),
        ("get", (None,), {}),
        ("get_many", ("k", 1), {}),
        ("delete", ("k",), {"collection": 1}),
    ],
    # An address in an id would differ between the processes of a parallel run.
    ids=lambda call: re.sub(r" at 0x\w+", "", str(call)),
)
def test_a_wrong_call_raises_the_same_error(inner: InlineKeyValueStore, call: Call) -> None:
    def error_of(store: object) -> type[Exception]:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the reference says which
            asyncio.run(outcome_of(store, call))
        return caught.type

    assert error_of(KvworkerKeyValueStore(inner, namespace_prefix=next(_prefixes))) is error_of(MemoryStore())


def test_the_librarys_wrappers_and_adapters_work_on_it(inner: InlineKeyValueStore) -> None:
    async def use() -> None:
        store = KvworkerKeyValueStore(inner, namespace_prefix=next(_prefixes))
        wrapped = PrefixKeysWrapper(PrefixCollectionsWrapper(store, prefix="app"), prefix="user")
        numbers = PydanticAdapter[list[int]](wrapped, list[int], default_collection="numbers")
        await numbers.put("primes", [2, 3, 5], ttl=60)
        assert await numbers.get("primes") == [2, 3, 5]
        (collection,) = await store.collections()
        (key,) = await store.keys(collection)
        assert ("app" in collection, "user" in key) == (True, True)
        assert await numbers.delete("primes")
        assert await store.keys(collection) == []

    asyncio.run(use())
