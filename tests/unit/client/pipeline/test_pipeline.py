"""Pipelines without a queue: collecting, sending, handles, errors and repeating."""

# ruff: noqa: PT012 - what a with block of several statements raises at its end is the subject

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvworker import (
    AsyncKeyValueStore,
    GetResult,
    IdempotencyConflictError,
    InlineKeyValueStore,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    KeyValueStore,
    KVStoreError,
    NamespaceQuotaExceededError,
    OperationNotSentError,
    Pipeline,
    PipelinedResult,
    PipelineError,
    PolicyDeniedError,
    QueueUnavailableError,
    Settings,
    ValueSerializationError,
    VersionConflictError,
)
from kvworker.client.pipeline import batches
from kvworker.model import MAX_READ_BYTES
from tests.support.policy_matrix import PERSONAS

MIB = 1024 * 1024


def settings_of(**blocks: Any) -> Settings:
    sqlite = {"url": "sqlite://", "namespace_quota_bytes": 20 * MIB}
    tools = {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": sqlite}}}
    # No server listens there.
    return Settings.from_mapping({"tools": tools, "queue": {"broker_url": "redis://127.0.0.1:1/0"}, **blocks})


class CountingStore(InlineKeyValueStore):
    """An inline store that records every message."""

    def __init__(self, settings: Settings | None = None, persona: str | None = None) -> None:
        super().__init__(settings or settings_of(), persona)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def submit(self, tool: str, arguments: Any, *, timeout: float | None = None) -> Any:
        self.sent.append((tool, dict(arguments)))
        return super().submit(tool, arguments, timeout=timeout)

    @property
    def shapes(self) -> list[tuple[str, str, int]]:
        """The tool, the namespace and the number of operations of each message."""
        return [(tool, args["namespace"], len(args.get("operations", "1"))) for tool, args in self.sent]


@pytest.fixture
def store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


class TestSending:
    def test_operations_are_collected_and_sent_at_the_end_of_the_block(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            a = p.set("session", "token", {"scopes": ["a"]}, ttl_seconds=60)
            b = p.increment("metrics", "calls", delta=2, initial_value=40)
            c = p.get("session", "token")
            d = p.touch("session", "token", 30)
            e = p.persist("session", "token")
            f = p.delete("metrics", "nothing")
            assert store.sent == []
        assert (a.result().value, a.result().ttl_seconds, a.result().replayed) == ({"scopes": ["a"]}, 60, False)
        assert b.result().value == 42
        assert (c.result().found, c.result().value) == (True, {"scopes": ["a"]})
        assert d.result().ttl_seconds == 30
        assert e.result().ttl_seconds is None
        assert f.result().deleted is False
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


class TestErrors:
    def test_the_block_raises_the_failures_and_everything_else_is_applied(self, store: CountingStore) -> None:
        store.set("n", "text", "no counter")
        with pytest.raises(PipelineError) as caught, store.pipeline() as p:
            before = p.set("n", "a", 1)
            refused = p.increment("n", "text")
            absent = p.set("n", "text", 2, if_absent=True)
            after = p.set("n", "b", 1)
            other = p.set("m", "b", 1)
        error = caught.value
        assert [type(one) for one in error.errors] == [InvalidValueTypeError, VersionConflictError]
        assert [failure[:3] for failure in error.failures] == [["kv_increment", "n", "text"], ["kv_set", "n", "text"]]
        assert error.idempotency_key == p.idempotency_key
        assert "2 operations of the pipeline" in str(error)
        assert "kv_increment of 'text' in namespace 'n': the stored value is not a JSON integer" in str(error)
        assert all(handle.result() for handle in (before, after, other))
        for handle, cls in ((refused, InvalidValueTypeError), (absent, VersionConflictError)):
            with pytest.raises(cls):
                handle.result()

    def test_an_error_that_its_handle_has_raised_is_not_raised_again(self, store: CountingStore) -> None:
        store.set("n", "text", "no counter")
        with pytest.raises(PipelineError) as caught, store.pipeline() as p:
            asked, _ = p.increment("n", "text"), p.increment("n", "text", delta=2)
            for number in range(998):
                p.increment("n", f"k{number}")
            with pytest.raises(InvalidValueTypeError):
                asked.result()
        assert len(caught.value.errors) == 1

    def test_an_error_is_raised_by_one_flush_only(self, store: CountingStore) -> None:
        store.set("n", "text", "no counter")
        with store.pipeline() as p:
            p.increment("n", "text")
            with pytest.raises(PipelineError):
                p.flush()
            after = p.set("n", "a", 1)
        assert after.result().value == 1

    def test_errors_may_be_left_to_the_handles(self, store: CountingStore) -> None:
        store.set("n", "taken", 1)
        with store.pipeline(raise_on_error=False) as p:
            claims = [p.set("n", key, "me", if_absent=True) for key in ("free", "taken")]
        assert claims[0].result().value == "me"
        with pytest.raises(VersionConflictError):
            claims[1].result()

    def test_the_quota_applies_to_each_write(self, store: CountingStore) -> None:
        store.set_quota("n", 100)
        with store.pipeline(raise_on_error=False) as p:
            handles = [p.set("n", f"k{number}", "x" * 38) for number in range(4)]
            p.delete("n", "k0")
            handles.append(p.set("n", "k4", "x" * 38))
        assert [isinstance(handle.outcome, NamespaceQuotaExceededError) for handle in handles] == [
            *(False, False, True, True, False)
        ]

    def test_many_errors_are_summarized(self, store: CountingStore) -> None:
        store.set("n", "text", "no counter")
        with pytest.raises(PipelineError, match=r"50 operations of .*; and 47 more$"), store.pipeline() as p:
            for _ in range(50):
                p.increment("n", "text")

    def test_after_a_failed_message_its_namespace_gets_no_other(self, store: CountingStore) -> None:
        with store.pipeline(idempotency_key="run-1") as p:
            p.set("n", "k", 1)
        with pytest.raises(PipelineError) as caught, store.pipeline(idempotency_key="run-1") as p:
            p.set("n", "k", "something else")
            read = p.get("n", "k")
            p.flush()
        assert [type(one) for one in caught.value.errors] == [IdempotencyConflictError, OperationNotSentError]
        assert "'run-1' was already used in namespace 'n'" in str(caught.value)
        with pytest.raises(OperationNotSentError, match="an earlier message of namespace 'n' failed: operation id"):
            read.result()
        assert store.get("n", "k").value == 1

    def test_operations_added_after_a_failed_message_are_not_sent_either(self, store: CountingStore) -> None:
        with store.pipeline(idempotency_key="run-1") as p:
            p.set("n", "k", 1)
        with store.pipeline(idempotency_key="run-1", raise_on_error=False) as p:
            p.set("n", "k", 2)
            p.flush()
            late, other = p.set("n", "late", 1), p.set("m", "other", 1)
        assert isinstance(late.outcome, OperationNotSentError)
        assert other.result().value == 1

    def test_no_broker(self) -> None:
        with KeyValueStore(settings_of()) as store:
            p = store.pipeline(timeout=0.2, idempotency_key="run-1")
            p.set("n", "k", 1)
            p.get("n", "k")
            with pytest.raises(PipelineError) as caught:
                p.flush()
        assert [type(one) for one in caught.value.errors] == [QueueUnavailableError, OperationNotSentError]
        assert caught.value.errors[0].args[0] == "run-1"


class TestBadInput:
    def test_a_wrong_argument_is_raised_by_the_call_and_nothing_is_collected(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            good = p.set("n", "good", 1)
            with pytest.raises(InvalidKeyError, match="namespace must not be blank"):
                p.get(" ", "k")
            with pytest.raises(InvalidTTLError):
                p.touch("n", "k", -1)
            with pytest.raises(ValueSerializationError):
                p.set("n", "k", float("nan"))
            with pytest.raises(InvalidRequestError, match="contradict"):
                p.set("n", "k", 1, if_absent=True, expected_version=3)
        assert good.result().value == 1
        assert store.shapes == [("kv_batch", "n", 1)]

    def test_options_of_the_whole_pipeline_are_refused_for_one_operation(self, store: CountingStore) -> None:
        with store.pipeline() as p:
            with pytest.raises(InvalidRequestError, match=r"takes no idempotency_key; give one to pipeline\(\)"):
                p.increment("n", "k", idempotency_key="x")
            with pytest.raises(InvalidRequestError, match=r"takes no timeout; give one to pipeline\(\)"):
                p.get("n", "k", timeout=1)
        assert store.sent == []

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"timeout": 0}, "timeout must be"),
            ({"timeout": True}, "timeout must be"),
            ({"raise_on_error": "no"}, "raise_on_error must be true or false"),
            ({"idempotency_key": " "}, "idempotency_key must not be blank"),
            ({"idempotency_key": 7}, "idempotency_key must be a string"),
            ({"idempotency_key": "ü" * 121}, "at most 240 bytes of UTF-8, not 242"),
        ],
        ids=str,
    )
    def test_options(self, store: CountingStore, options: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidRequestError, match=says):
            store.pipeline(**options)

    def test_the_longest_key(self, store: CountingStore) -> None:
        with store.pipeline(idempotency_key="ü" * 120) as p:
            p.increment("n", "k")
        assert store.get("n", "k").value == 1

    def test_a_closed_store(self) -> None:
        store = KeyValueStore(settings_of())
        store.close()
        with pytest.raises(InvalidRequestError, match="closed"):
            store.pipeline()

    def test_the_asynchronous_pipeline_checks_the_same(self) -> None:
        p = AsyncKeyValueStore(settings_of()).pipeline()
        with pytest.raises(InvalidKeyError):
            p.get(" ", "k")
        with pytest.raises(InvalidRequestError, match="no result yet"):
            p.get("n", "k").result()


def test_a_persona_is_refused_by_the_call() -> None:
    with CountingStore(settings_of(policies={"personas": PERSONAS}), "team") as store, store.pipeline() as p:
        allowed = p.set("team.a", "k", 1)
        p.get("shared.b", "k")
        with pytest.raises(PolicyDeniedError) as caught:
            p.set("shared.b", "k", 1)
        assert (caught.value.tool, caught.value.namespace) == ("kv_set", "shared.b")
        p.flush()
        assert allowed.result().value == 1
        with pytest.raises(PolicyDeniedError), store.as_persona("reader").pipeline() as q:
            q.delete("team.a", "k")


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
        @settings(max_examples=150, deadline=None)
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


def test_a_pipeline_has_the_facades_docstrings() -> None:
    for name in ("get", "set", "delete", "increment", "touch", "persist"):
        assert getattr(Pipeline, name).__doc__ == getattr(KeyValueStore, name).__doc__
