"""Pipelines without a queue: collecting, sending and handles."""

# ruff: noqa: PT012 - what a with block of several statements raises at its end is the subject

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvworker import (
    GetResult,
    InvalidRequestError,
    KeyValueStore,
    OperationNotSentError,
    Pipeline,
)
from kvworker.model import MAX_READ_BYTES
from tests.support.pipelines import MIB, CountingStore


class TestSending:
    def test_operations_are_collected_and_sent_at_the_end_of_the_block(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            a = p.set("session", "token", {"scopes": ["a"]}, ttl_seconds=60)
            b = p.increment("metrics", "calls", delta=2, initial_value=40)
            c = p.get("session", "token")
            d = p.touch("session", "token", 30)
            e = p.persist("session", "token")
            f = p.delete("metrics", "nothing")
            g = p.append("session", "events", ["a", {"b": None}])
            p.merge("session", "state", {"a": 1, "b": None})
            h = p.get_and_delete("session", "state")
            assert store.sent == []
        assert (a.result().value, a.result().ttl_seconds, a.result().replayed) == ({"scopes": ["a"]}, 60, False)
        assert b.result().value == 42
        assert (c.result().found, c.result().value) == (True, {"scopes": ["a"]})
        assert d.result().ttl_seconds == 30
        assert e.result().ttl_seconds is None
        assert f.result().deleted is False
        assert (g.result().length, store.get("session", "events").value) == (2, ["a", {"b": None}])
        assert (h.result().value, store.get("session", "state").found) == ({"a": 1}, False)
        assert store.get("session", "token").ttl_seconds is None

    def test_reads_and_writes_of_other_keys_are_two_messages(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            for number in range(100):
                p.set("n", f"new {number}", number)
                p.get("n", f"old {number}")
        assert store.shapes == [("kv_batch", "n", 100), ("kv_batch", "n", 100)]
        assert {step["tool"] for step in store.sent[0][1]["operations"]} == {"kv_get"}

    def test_each_read_sees_the_writes_before_it_and_none_after_it(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            reads = []
            for number in range(4):
                reads.append(p.get("n", "k"))
                p.increment("n", "k", delta=10**number)
        assert [read.result().value for read in reads] == [None, 1, 11, 111]
        assert [shape[2] for shape in store.shapes] == [1] * 8

    def test_a_namespace_is_sent_once_it_has_1000_operations(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            for number in range(999):
                p.set("n", f"k{number}", number)
            p.set("other", "k", 1)
            assert store.sent == []
            last = p.get("n", "k998")
            assert store.shapes == [("kv_batch", "n", 999), ("kv_get", "n", 1)]
            assert last.result().value == 998
            p.set("n", "k", 1)
        assert store.shapes[2:] == [("kv_batch", "n", 1), ("kv_batch", "other", 1)]

    def test_a_namespace_is_sent_before_it_has_more_than_4_mib(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            p.set("n", "a", "x" * (3 * MIB))
            p.set("n", "b", "y" * (MIB - 10))
            assert store.shapes == []
            p.set("n", "c", "zz")
            assert store.shapes == [("kv_batch", "n", 2)]
            p.set("n", "d", "ü" * (MAX_READ_BYTES // 2))
            assert store.shapes[1:] == [("kv_batch", "n", 1)]
        assert store.shapes[2:] == [("kv_batch", "n", 1)]
        assert store.usage("n").entry_count == 4

    def test_a_read_that_is_too_large_for_a_batch_is_split(self, store: CountingStore) -> None:
        values = {f"k{number}": str(number) * (3 * MIB // 2) for number in range(5)}
        for key, value in values.items():
            store.set("n", key, value)
        store.set("n", "large", "x" * (5 * MIB))
        with store.pipeline() as p:
            p.increment("n", "count")
            reads = {key: p.get("n", key) for key in [*values, "missing"]}
            large = p.get("n", "large")
        assert {key: read.result().value for key, read in reads.items()} == {**values, "missing": None}
        assert len(large.result().value or "") == 5 * MIB  # type: ignore[arg-type]
        assert store.get("n", "count").value == 1

    def test_a_flush_in_between(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            version = p.set("n", "k", 1)
            p.flush()
            again = p.set("n", "k", 2, expected_version=version.result().version)
        assert again.result().value == 2
        assert [args["idempotency_key"][-2:] for _, args in store.sent] == ["#1", "#2"]

    def test_flush_works_without_a_block(self, store: CountingStore) -> None:
        p = store.pipeline()
        result = p.increment("n", "c")
        p.flush()
        p.flush()
        assert result.result().value == 1
        assert len(store.sent) == 1

    def test_an_empty_pipeline_sends_nothing(self, store: CountingStore) -> None:
        with store.pipeline():
            pass
        assert store.sent == []

    def test_a_value_is_copied_by_the_call(self, store: CountingStore) -> None:
        value = {"items": [1]}
        with store.pipeline() as p:
            p.set("n", "k", value)
            value["items"].append(2)
        assert store.get("n", "k").value == {"items": [1]}


class TestHandles:
    def test_before_it_is_sent_there_is_no_result(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            handle = p.get("n", "k")
            with pytest.raises(InvalidRequestError, match=r"this kv_get has no result yet: call flush\(\)"):
                handle.result()
        assert handle.result() == GetResult("n", "k", found=False)

    def test_a_block_that_raises_sends_nothing_more_and_its_handles_say_so(self, store: CountingStore) -> None:
        with pytest.raises(ZeroDivisionError), store.pipeline() as p:
            sent = [p.set("m", f"k{number}", number) for number in range(1000)]
            handle = p.set("n", "k", 1)
            _ = 1 / 0
        assert store.shapes == [("kv_batch", "m", 1000)]
        assert sent[7].result().value == 7
        with pytest.raises(
            OperationNotSentError, match="applied nothing: the pipeline's with block was left by an error"
        ):
            handle.result()

    def test_a_pipeline_that_has_ended_says_so(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            pass
        uses: list[Callable[[], object]] = [lambda: p.get("n", "k"), p.flush, p.__enter__]
        for use in uses:
            with pytest.raises(InvalidRequestError, match="this pipeline has ended"):
                use()


def test_a_pipeline_has_the_facades_docstrings() -> None:
    for name in ("get", "set", "delete", "increment", "touch", "persist"):
        assert getattr(Pipeline, name).__doc__ == getattr(KeyValueStore, name).__doc__
