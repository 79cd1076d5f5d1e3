"""Searches by meaning: LangGraph's in-memory store and kvworker's find the same items, with the same scores."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import BaseStore, GetOp, IndexConfig, PutOp, SearchItem, SearchOp
from langgraph.store.memory import InMemoryStore

from kvworker import InlineKeyValueStore, InvalidRequestError
from kvworker.integrations.langgraph import KvworkerStore
from tests.support.counting import CountingStore

_LETTERS = "abcdefgh"


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Count the letters of each text."""
    return [[float(text.count(letter)) for letter in _LETTERS] for text in texts]


async def aembed(texts: Sequence[str]) -> list[list[float]]:
    return embed(texts)


INDEX: IndexConfig = {"dims": len(_LETTERS), "embed": embed, "fields": ["text", "notes[*].text"]}


@pytest.fixture
def kv_store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


def _found(items: Sequence[SearchItem]) -> list[Any]:
    """Scores and keys. Items of equal scores have no order."""
    pairs = [(item.score and round(item.score, 5), item.namespace, item.key) for item in items]
    return sorted(pairs, key=lambda pair: (pair[0] is None, -(pair[0] or 0), pair[1:]))


_TEXTS = st.text(_LETTERS, min_size=1, max_size=6)
# Without equal texts in one item, which LangGraph's own store refuses.
_NOTES = st.lists(st.text("abcd", min_size=1, max_size=6), max_size=2, unique=True)
_VALUES = st.fixed_dictionaries(
    {"n": st.integers(1, 3)},
    optional={
        "text": st.text("efgh", min_size=1, max_size=6),
        "notes": _NOTES.map(lambda texts: [{"text": text} for text in texts]),
    },
)
_PUTS = st.dictionaries(st.tuples(st.sampled_from("xyz"), st.sampled_from("klmn")), _VALUES, max_size=9)


@settings(max_examples=100)
@given(_PUTS, _TEXTS, st.sampled_from([None, {"n": 2}]))
def test_random_items_are_found_with_the_same_scores(
    puts: dict[tuple[str, str], dict[str, Any]], query: str, wanted: dict[str, Any] | None
) -> None:
    with InlineKeyValueStore() as kv_store:
        stores: list[BaseStore] = [KvworkerStore(kv_store, index=INDEX), InMemoryStore(index=INDEX)]
        for store in stores:
            for (label, key), value in puts.items():
                # One by one: the in-memory store refuses a batch in which two items have the same text.
                store.put(("a", label), key, value)
        found, expected = (store.search(("a",), query=query, filter=wanted, limit=100) for store in stores)
        assert _found(found) == _found(expected)
        for pair in pairwise(found):
            assert pair[1].score is None or (pair[0].score is not None and pair[0].score >= pair[1].score - 1e-9)
        pages = [stores[0].search(("a",), query=query, filter=wanted, limit=2, offset=offset) for offset in (0, 2, 4)]
        scored = [item for item in found if item.score is not None]
        assert [item for page in pages for item in page if item.score is not None] == scored[:6]


def test_what_is_embedded_can_be_chosen_for_each_item(kv_store: CountingStore) -> None:
    store = KvworkerStore(kv_store, index=INDEX)
    store.put(("a",), "default", {"text": "aab", "title": "hh"})
    store.put(("a",), "title", {"text": "hh", "title": "aab"}, index=["title"])
    store.put(("a",), "none", {"text": "aab"}, index=False)
    store.put(("a",), "several", {"text": "g", "notes": [{"text": "aab"}, {"text": "f"}]})
    items = store.search(("a",), query="baa")
    assert _found(items[:3]) == [(1.0, ("a",), "default"), (1.0, ("a",), "several"), (1.0, ("a",), "title")]
    assert (items[3].key, items[3].score) == ("none", None)
    assert [item.score for item in store.search(("a",))] == [None] * 4
    assert items[0].dict().keys() == store.search(("a",))[0].dict().keys()


def test_an_item_keeps_its_vectors_while_it_is_read_and_loses_them_when_it_is_put_again(
    kv_store: CountingStore,
) -> None:
    store = KvworkerStore(kv_store, index=INDEX)
    store.put(("a",), "k", {"text": "aaa"}, ttl=10)
    store.get(("a",), "k")
    assert [item.score for item in store.search(("a",), query="a")] == [1.0]
    assert kv_store.sent.count("kv_touch") == 2
    store.put(("a",), "k", {"text": "bbb"})
    assert [item.score for item in store.search(("a",), query="a")] == [0.0]
    KvworkerStore(kv_store).put(("a",), "k", {"text": "aaa"})
    assert [item.score for item in store.search(("a",), query="a")] == [None]


def test_a_batch_embeds_each_text_once(kv_store: CountingStore) -> None:
    calls: list[list[str]] = []

    def counting(texts: Sequence[str]) -> list[list[float]]:
        calls.append(list(texts))
        return embed(texts)

    store = KvworkerStore(kv_store, index={"dims": 8, "embed": counting, "fields": ["text"]})
    store.put(("a",), "old", {"text": "c"})
    puts = [PutOp(("a",), key, {"text": "a"}) for key in ("k", "l")]
    found = store.batch([*puts, PutOp(("a",), "k", {"text": "b"}), SearchOp(("a",), query="c"), GetOp(("a",), "k")])[3]
    assert isinstance(found, list)
    assert [item.key for item in found if isinstance(item, SearchItem)] == ["old"]
    assert calls == [["c"], ["b", "a"], ["c"]]
    store.batch([GetOp(("a",), "k")])
    assert len(calls) == 3


@pytest.mark.parametrize("function", [embed, aembed])
def test_coroutines(kv_store: CountingStore, function: Any) -> None:
    store = KvworkerStore(kv_store, index={"dims": 8, "embed": function})

    async def use() -> list[SearchItem]:
        await store.aput(("a",), "k", {"text": "abc"})
        return await store.asearch(("a",), query="abc")

    (item,) = asyncio.run(use())
    assert item.score is not None
    assert 0 < item.score < 1  # the whole value is embedded, with its names


def test_a_namespace_of_several_pages_is_searched_whole(kv_store: CountingStore) -> None:
    kv_store.set_quota("langgraph:a", 10_000_000)
    store = KvworkerStore(kv_store, index=INDEX)
    store.batch([PutOp(("a",), f"k{number:04}", {"text": "h" * (number + 1) + "a"}) for number in range(1500)])
    items = store.search(("a",), query="h", limit=3)
    assert [item.key for item in items] == ["k1499", "k1498", "k1497"]
    assert kv_store.sent.count("kv_list_keys") == 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda texts: [[1.0] for _ in texts], r"shape \(1,\), but index\[\"dims\"\] is 8"),
        (lambda texts: [[float("nan")] * 8 for _ in texts], "NaN or Infinity"),
        (lambda _: [], "made 0 vectors of 1 texts"),
    ],
)
def test_what_no_index_can_hold_is_refused(kv_store: CountingStore, function: Any, reason: str) -> None:
    store = KvworkerStore(kv_store, index={"dims": 8, "embed": function, "fields": ["text"]})
    with pytest.raises(InvalidRequestError, match=reason):
        store.put(("a",), "k", {"text": "a"})
    assert kv_store.sent == []


def test_a_change_of_the_embedding_function_is_noticed(kv_store: CountingStore) -> None:
    KvworkerStore(kv_store, index=INDEX).put(("a",), "k", {"text": "a"})
    other = KvworkerStore(kv_store, index={"dims": 2, "embed": lambda texts: [[1.0, 0.0] for _ in texts]})
    with pytest.raises(InvalidRequestError, match="a vector of 8 dimensions, but the query's has 2"):
        other.search(("a",), query="a")


@pytest.mark.parametrize("dims", [None, 0, True, "8"])
def test_an_index_needs_its_number_of_dimensions(kv_store: CountingStore, dims: Any) -> None:
    with pytest.raises(InvalidRequestError, match="number of dimensions"):
        KvworkerStore(kv_store, index={"dims": dims, "embed": embed})


def test_only_an_index_needs_numpy() -> None:
    program = """
import sys
sys.modules["numpy"] = None
from kvworker import InlineKeyValueStore
from kvworker.integrations.langgraph import KvworkerStore
with InlineKeyValueStore() as kv_store:
    KvworkerStore(kv_store).put(("a",), "k", {"text": "a"})
    try:
        KvworkerStore(kv_store, index={"dims": 1, "embed": lambda texts: [[1.0] for _ in texts]})
    except ModuleNotFoundError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "the index of a KvworkerStore needs the extra `vectors`" in done.stdout
