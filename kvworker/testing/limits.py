"""Cases: limits of the rows that a namespace, or many namespaces, may fill. An adapter may do without them."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import LimitExceededError, QuotaExceededError
from kvworker.model import Operation, Step, StepBegin, StepBeginResult, StepFinish
from kvworker.testing.support import SHORT_TTL_SECONDS, eventually, wait_for_expiry

_RECORDS = 100


class LimitedAdapterFactory(Protocol):
    """Makes adapters over the test's store, with limits of rows."""

    def __call__(
        self,
        *,
        namespace_entry_limit: int = ...,
        namespace_record_limit: int = ...,
        namespace_limit: int = ...,
        operation_retention_seconds: float = ...,
    ) -> KeyValueStoreAdapter:
        """Make an adapter with these settings and defaults for the others."""


class LimitConformance:
    """The cases of an adapter that limits entries, operation records and namespaces.

    Subclass it beside ``AdapterConformance`` and give it a ``make_adapter`` fixture. Its function also takes the
    configuration keys ``namespace_entry_limit``, ``namespace_record_limit`` and ``namespace_limit``.
    """

    def test_a_namespace_holds_as_many_entries_as_its_limit(self, make_adapter: LimitedAdapterFactory) -> None:
        """The error for another entry names the kind, the limit and the count. Other writes of the namespace pass."""
        adapter = make_adapter(namespace_entry_limit=3)
        for number in range(3):
            adapter.set("namespace", f"{number}" * 1000, 0)
        with pytest.raises(LimitExceededError) as caught:
            adapter.set("namespace", "one more", 0)
        assert caught.value.args == ("entries", "namespace", 3, 3)
        with pytest.raises(QuotaExceededError):
            adapter.increment("namespace", "counter")
        adapter.set("namespace", "0" * 1000, "an entry that exists may grow")
        adapter.set("another", "key", 0)
        adapter.delete("namespace", "1" * 1000)
        adapter.set("namespace", "one more", 0)
        (usage,) = adapter.usage("namespace")
        assert (usage.entry_count, usage.entry_limit) == (3, 3)

    def test_expired_entries_do_not_count_against_the_limit(self, make_adapter: LimitedAdapterFactory) -> None:
        """Before it refuses an entry, a write deletes expired ones."""
        adapter = make_adapter(namespace_entry_limit=2)
        adapter.set("namespace", "kept", 0)
        adapter.set("namespace", "expiring", 0, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "expiring")
        adapter.set("namespace", "new", 0)
        assert adapter.usage("namespace")[0].entry_count == 2

    def test_a_limit_refuses_a_batch_or_its_steps(self, make_adapter: LimitedAdapterFactory) -> None:
        """An atomic batch is refused as a whole, others by the step. A batch that swaps entries passes."""
        adapter = make_adapter(namespace_entry_limit=2)
        steps = [Step("set", key, value=0) for key in "abc"]
        with pytest.raises(LimitExceededError):
            adapter.batch("namespace", steps)
        batch = adapter.batch("namespace", steps, atomic=False)
        assert [isinstance(result, LimitExceededError) for result in batch.results] == [False, False, True]
        assert len(adapter.batch("namespace", [Step("delete", "a"), Step("set", "c", value=0)]).results) == 2

    def test_operations_applied_together_keep_the_limit(self, make_adapter: LimitedAdapterFactory) -> None:
        """``apply_many`` applies no more than fits; those that it returns None for are then applied one by one."""
        adapter = make_adapter(namespace_entry_limit=2)
        operations = [Operation("namespace", Step("set", key, value=0), f"set {key}") for key in "abc"]
        applied = [result for result in adapter.apply_many(operations) if result is not None]
        assert adapter.usage("namespace")[0].entry_count == len(applied) <= 2

    def test_a_lowered_limit_deletes_nothing(self, make_adapter: LimitedAdapterFactory) -> None:
        """Beyond its limit, a namespace keeps its entries. Writes that add none pass."""
        for key in "abc":
            make_adapter().set("namespace", key, 0)
        adapter = make_adapter(namespace_entry_limit=1)
        adapter.set("namespace", "a", "longer")
        with pytest.raises(LimitExceededError):
            adapter.set("namespace", "d", 0)
        assert adapter.delete("namespace", "a").deleted

    def test_a_namespace_keeps_as_many_operation_records_as_its_limit(
        self, make_adapter: LimitedAdapterFactory
    ) -> None:
        """Another write raises, even one that would change nothing. An entry can still be deleted."""
        adapter = make_adapter(namespace_record_limit=_RECORDS)
        adapter.set("namespace", "key", 0)
        fill_records(adapter)
        with pytest.raises(LimitExceededError):
            adapter.delete("namespace", "missing")
        (usage,) = adapter.usage("namespace")
        assert (usage.record_count, usage.record_limit) == (_RECORDS, _RECORDS)
        assert adapter.delete("namespace", "key").deleted
        assert adapter.clear("namespace").deleted_entries == 1
        assert (adapter.usage("namespace")[0].record_count or 0) <= _RECORDS

    def test_an_applied_operation_is_answered_at_the_limit_of_records(
        self, make_adapter: LimitedAdapterFactory
    ) -> None:
        """The same id returns the recorded result, even if no further record fits."""
        adapter = make_adapter(namespace_record_limit=_RECORDS)
        adapter.set("namespace", "key", 0, operation_id="operation")
        fill_records(adapter)
        assert adapter.set("namespace", "key", 0, operation_id="operation").replayed

    def test_a_refused_operation_can_be_tried_again(self, make_adapter: LimitedAdapterFactory) -> None:
        """A refusal at the limit of records leaves no record, so the same id is applied once there is room."""
        adapter = make_adapter(namespace_record_limit=_RECORDS)
        fill_records(adapter)
        with pytest.raises(LimitExceededError):
            adapter.set("namespace", "key", 1, operation_id="operation")
        roomier = make_adapter(namespace_record_limit=2 * _RECORDS)
        assert not roomier.set("namespace", "key", 1, operation_id="operation").replayed
        assert roomier.set("namespace", "key", 1, operation_id="operation").replayed

    def test_a_store_has_as_many_namespaces_as_its_limit(self, make_adapter: LimitedAdapterFactory) -> None:
        """Each kind of write raises in a new namespace, and passes in one that exists."""
        adapter = make_adapter(namespace_limit=2)
        adapter.set("one", "key", 0)
        adapter.set_quota("two", 5000)
        for write in (lambda: adapter.set("three", "key", 0), lambda: adapter.delete("three", "key")):
            with pytest.raises(LimitExceededError) as caught:
                write()
            assert caught.value.args == ("namespaces", None, 2, 2)
        with pytest.raises(LimitExceededError):
            adapter.batch("three", [Step("set", "key", value=0)], atomic=False)
        adapter.set("one", "another key", 0)

    def test_a_namespace_that_holds_nothing_makes_room_for_another(self, make_adapter: LimitedAdapterFactory) -> None:
        """A namespace without entries, records and an own quota does not count."""
        adapter = make_adapter(namespace_limit=1, operation_retention_seconds=0.2)
        adapter.set("one", "key", 0)
        adapter.delete("one", "key")

        def is_founded() -> bool:
            """Write to a new namespace."""
            with suppress(LimitExceededError):
                return adapter.set("two", "key", 0).value == 0
            return False

        eventually(is_founded, timeout_seconds=60)

    def test_the_end_of_an_effect_is_recorded_at_the_limit_of_records(
        self, make_adapter: LimitedAdapterFactory
    ) -> None:
        """A reserved durable step holds a record in reserve for its end, which must not be refused."""
        adapter = make_adapter(namespace_record_limit=_RECORDS)
        begun = adapter.apply_step("namespace", StepBegin("step_begin", "step"), None)
        assert isinstance(begun, StepBeginResult)
        assert begun.token is not None
        fill_records(adapter)
        ended = StepFinish("step_finish", "step", token=begun.token, state="done")
        assert adapter.apply_step("namespace", ended, None)
        assert adapter.get("namespace", "step").value == {
            "$step": 1,
            "state": "done",
            "token": begun.token,
            "value": None,
        }


def fill_records(adapter: KeyValueStoreAdapter) -> None:
    """Write to a namespace until it may keep no more operation records."""
    for _ in range(_RECORDS):
        with suppress(LimitExceededError):
            adapter.increment("namespace", "counter")
    with pytest.raises(LimitExceededError) as caught:
        adapter.increment("namespace", "counter")
    assert caught.value.args == ("records", "namespace", _RECORDS, _RECORDS)
