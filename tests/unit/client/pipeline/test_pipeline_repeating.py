"""Pipelines without a queue: repeating one, and the same results as single calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvworker import (
    IdempotencyConflictError,
    InlineKeyValueStore,
    KVStoreError,
    PipelinedResult,
    VersionConflictError,
)
from kvworker.client.pipeline import batches
from tests.support.pipelines import CountingStore


class TestRepeating:
    def test_a_repeated_pipeline_is_applied_once_and_answers_as_it_did(self, store: CountingStore) -> None:
        def run() -> list[Any]:
            with store.pipeline(idempotency_key="run-7/step-3", raise_on_error=False) as p:
                handles: list[PipelinedResult[Any]] = [p.increment(f"n{number % 3}", "c") for number in range(12)]
                p.flush()
                handles += [p.increment("n1", "c"), p.set("n1", "c", 0, if_absent=True)]
            return handles

        first, again = run(), run()
        assert [store.get(f"n{number}", "c").value for number in range(3)] == [4, 5, 4]
        for one, other in zip(first[:-1], again[:-1], strict=True):
            assert one.result().value == other.result().value
        assert [type(handles[-1].outcome) for handles in (first, again)] == [VersionConflictError] * 2

    def test_other_operations_under_the_same_key_are_refused(self, store: CountingStore) -> None:
        for delta, expected in ((1, 1), (2, 1)):
            with store.pipeline(idempotency_key="run-1", raise_on_error=False) as p:
                handle = p.increment("n", "c", delta=delta)
            assert store.get("n", "c").value == expected
        with pytest.raises(IdempotencyConflictError) as caught:
            handle.result()
        assert caught.value.operation_id == "run-1"

    def test_without_a_key_one_is_made(self, store: CountingStore) -> None:
        for _ in range(2):
            with store.pipeline() as p:
                p.increment("n", "c")
        with store.pipeline(idempotency_key=p.idempotency_key) as again:
            replayed = again.increment("n", "c")
        assert (replayed.result().value, replayed.result().replayed) == (2, True)


OPERATIONS = st.one_of(
    st.tuples(st.just("get"), st.fixed_dictionaries({})),
    st.tuples(
        st.just("set"),
        st.one_of(
            st.fixed_dictionaries({"value": st.sampled_from([1, "text", {"a": []}]), "if_absent": st.booleans()}),
            st.fixed_dictionaries({"value": st.integers(), "keep_ttl": st.booleans()}),
            st.fixed_dictionaries({"value": st.integers(), "expected_version": st.just(1), "ttl_seconds": st.just(9)}),
        ),
    ),
    st.tuples(st.just("delete"), st.fixed_dictionaries({})),
    st.tuples(st.just("increment"), st.fixed_dictionaries({"delta": st.integers(-(2**63), 2**63 - 1)})),
    st.tuples(st.just("touch"), st.fixed_dictionaries({"ttl_seconds": st.just(9)})),
    st.tuples(st.just("persist"), st.fixed_dictionaries({})),
)
WORK = st.lists(st.tuples(st.sampled_from("mn"), st.sampled_from("abc"), OPERATIONS), max_size=40)


def outcome_of(outcome: Callable[[], Any]) -> tuple[Any, ...]:
    """An operation's outcome without versions and remaining seconds, which differ between runs."""
    try:
        result = outcome()
    except KVStoreError as error:
        return type(error), error.args[:3]
    has_ttl = getattr(result, "ttl_seconds", None) is not None
    return type(result), *(getattr(result, name, None) for name in ("found", "value", "deleted")), has_ttl


def test_a_pipeline_gives_the_same_as_single_calls() -> None:
    numbers = itertools.count()
    with CountingStore() as store, InlineKeyValueStore() as other:

        @given(WORK, st.sampled_from([1, 3, 1000]), st.sampled_from([4, 1000]))
        @settings(max_examples=150)
        def compare(work: list[tuple[str, str, tuple[str, dict[str, Any]]]], most_steps: int, most_bytes: int) -> None:
            # Each example has its own namespaces: making a store takes longer.
            number = next(numbers)
            calls = [(f"{name} {number}", key, method, options) for name, key, (method, options) in work]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(batches, "MAX_BATCH_STEPS", most_steps)
                patch.setattr(batches, "MAX_COLLECTED_BYTES", most_bytes)
                with store.pipeline(raise_on_error=False) as p:
                    handles = [getattr(p, method)(name, key, **options) for name, key, method, options in calls]
            for handle, (name, key, method, options) in zip(handles, calls, strict=True):
                expected = outcome_of(lambda m=method, n=name, k=key, o=options: getattr(other, m)(n, k, **o))  # type: ignore[misc]
                assert outcome_of(handle.result) == expected
            for name in (f"m {number}", f"n {number}"):
                entries = [
                    [(e.key, e.value) for e in s.list_keys(name, include_values=True).entries] for s in (store, other)
                ]
                assert entries[0] == entries[1]

        compare()
