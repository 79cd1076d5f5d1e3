"""Cases: the steps of a batch and the values that it reads are bounded and checked."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidRequestError, ReadTooLargeError, ReplayTooLargeError
from kvworker.model import Step
from kvworker.testing.support import AdapterFactory, Cases, ledger, text_of


class BatchLimitCases(Cases):
    """Limits and checks of batches."""

    def test_the_values_that_a_batch_reads_are_bounded(self, make_adapter: AdapterFactory) -> None:
        """A batch that reads over 4 MiB of values raises and changes nothing, and so does one that also writes."""
        adapter = make_adapter(namespace_quota_bytes=2_000_000)
        adapter.set("namespace", "key", text_of(1_500_000))
        assert len(adapter.batch("namespace", [Step("get", "key")] * 2).results) == 2
        with pytest.raises(ReadTooLargeError) as caught:
            adapter.batch("namespace", [Step("get", "key")] * 3)
        assert caught.value.limit_bytes == 4 * 1024 * 1024
        with pytest.raises(ReadTooLargeError) as caught:
            adapter.batch("namespace", [*[Step("get", "key")] * 3, Step("set", "other", value=1)])
        assert caught.value.limit_bytes == 4 * 1024 * 1024
        assert not adapter.get("namespace", "other").found

    def test_a_replay_that_reads_too_much_by_now_says_that_the_batch_was_applied(
        self, make_adapter: AdapterFactory
    ) -> None:
        """A replay never fails as a first run would: a caller would then take the batch for not applied."""
        adapter = make_adapter(namespace_quota_bytes=2_000_000)
        adapter.set("namespace", "key", "short")
        steps = [*[Step("get", "key")] * 3, Step("increment", "counter")]
        adapter.batch("namespace", steps, operation_id="operation")
        adapter.set("namespace", "key", text_of(1_500_000))
        with pytest.raises(ReplayTooLargeError):
            adapter.batch("namespace", steps, operation_id="operation")
        assert adapter.get("namespace", "counter").value == 1

    @pytest.mark.parametrize("count", [0, 1001])
    def test_a_batch_has_1_to_1000_steps(self, adapter: KeyValueStoreAdapter, count: int) -> None:
        """A batch without steps, or with more than 1000, raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError, match="1 to 1000"):
            adapter.batch("namespace", [Step("increment", "key")] * count)

    def test_anything_but_a_list_of_steps_is_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """``batch`` raises ``InvalidRequestError`` for anything but a sequence of ``Step`` objects."""
        bad: list[Any] = [None, "abc", [1], [{"tool": "kv_get", "key": "key"}], Step("get", "key")]
        for steps in bad:
            with pytest.raises(InvalidRequestError):
                adapter.batch("namespace", steps)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"action": "bogus"},
            {"action": "persist", "ttl_seconds": 5},
            {"action": "get", "expected_version": 3},
            {"action": "delete", "if_absent": True},
            {"action": "set", "delta": 2},
            {"action": "increment", "keep_ttl": True},
            {"action": "touch", "ttl_seconds": 5, "value": 1},
        ],
        ids=str,
    )
    def test_a_step_accepts_only_the_options_of_its_action(self, arguments: dict[str, Any]) -> None:
        """A step with an unknown action, or with another action's option, raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError, match=r"takes no|must be one of"):
            Step(key="key", **arguments)

    def test_a_thousand_steps(self, adapter: KeyValueStoreAdapter) -> None:
        """A batch of the maximum length works, even when it writes the same keys several times."""
        steps = [Step("increment", f"key {number % 300}") for number in range(1000)]
        assert len(adapter.batch("namespace", steps).results) == 1000
        assert ledger(adapter, "namespace") == (300, 300)
        assert adapter.get("namespace", "key 0").value == 4
