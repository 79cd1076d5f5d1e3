"""Pipelines without a queue: errors and bad input."""

# ruff: noqa: PT012 - what a with block of several statements raises at its end is the subject

from __future__ import annotations

from typing import Any

import pytest

from kvworker import (
    AsyncKeyValueStore,
    IdempotencyConflictError,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    KeyValueStore,
    NamespaceQuotaExceededError,
    OperationNotSentError,
    PipelineError,
    PolicyDeniedError,
    QueueUnavailableError,
    ValueSerializationError,
    VersionConflictError,
)
from tests.support.pipelines import CountingStore, settings_of
from tests.support.policy_matrix import PERSONAS


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
