"""Cases: an entry's version shows whether it was written since, and a write can be conditional on it."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import IdempotencyConflictError, InvalidRequestError, VersionConflictError
from kvworker.model import Step
from kvworker.testing.support import SHORT_TTL_SECONDS, Cases, ledger, version_of, wait_for_expiry

_BAD_VERSIONS = [0, -1, True, 1.0, "1", 2**63]


class VersionCases(Cases):
    """Versions, compare-and-set and set-if-absent."""

    def test_every_write_of_a_value_gives_a_larger_version(self, adapter: KeyValueStoreAdapter) -> None:
        """Every write, even of the same value, gives the entry a larger version, which is below 2**53."""
        writes: list[Callable[[], Any]] = [
            lambda: adapter.set("namespace", "key", 1),
            lambda: adapter.set("namespace", "key", 1),
            lambda: adapter.increment("namespace", "key"),
            lambda: adapter.increment("namespace", "key", delta=0),
            lambda: adapter.set("namespace", "key", 2, keep_ttl=True),
        ]
        versions = []
        for write in writes:
            versions.append(write().version)
            assert version_of(adapter, "namespace", "key") == versions[-1]
        assert versions == sorted(set(versions))
        assert all(0 < version < 2**53 for version in versions), "JSON numbers are exact only below 2**53"

    def test_a_version_never_comes_back(self, adapter: KeyValueStoreAdapter) -> None:
        """A key that is written again after a delete or a clear gets a version that it never had before."""
        seen = []
        for _ in range(20):
            seen.append(adapter.set("namespace", "key", 1).version)
            adapter.delete("namespace", "key")
            seen.append(adapter.increment("namespace", "key").version)
            adapter.clear("namespace")
        assert len(set(seen)) == 40

    def test_a_version_of_a_batch_never_comes_back(self, adapter: KeyValueStoreAdapter) -> None:
        """A version that a batch gave to an overwritten value is not given again after the batch."""
        steps = [Step("set", "key", value=number) for number in range(500)]
        for _ in range(5):
            batch = adapter.batch("namespace", [*steps, Step("delete", "key")])
            given = {getattr(result, "version", None) for result in batch.results}
            version = adapter.set("namespace", "key", "another").version
            assert version not in given
            adapter.delete("namespace", "key")

    @pytest.mark.parametrize("atomic", [True, False])
    def test_every_write_of_a_batch_gives_a_larger_version(self, adapter: KeyValueStoreAdapter, atomic: bool) -> None:  # noqa: FBT001
        """Each writing step returns a larger version, and only the last of them matches the entry."""
        before = adapter.set("namespace", "key", 0).version
        steps = [
            Step("set", "key", value=1),
            Step("increment", "key"),
            Step("delete", "key"),
            Step("set", "key", value="last"),
        ]
        first, second, _, last = adapter.batch("namespace", steps, atomic=atomic).results
        versions = [before or 0, *(getattr(result, "version", 0) for result in (first, second, last))]
        assert versions == sorted(set(versions))
        assert version_of(adapter, "namespace", "key") == versions[-1]
        for version in versions[:-1]:
            with pytest.raises(VersionConflictError):
                adapter.set("namespace", "key", "lost", expected_version=version)

    def test_a_miss_has_no_version(self, adapter: KeyValueStoreAdapter) -> None:
        """A missing entry's version is None."""
        assert adapter.get("namespace", "key").version is None

    def test_compare_and_set(self, adapter: KeyValueStoreAdapter) -> None:
        """``set`` with an outdated version raises with the expected and the actual version, and changes nothing."""
        first = adapter.set("namespace", "key", "first", ttl_seconds=60).version
        second = adapter.set("namespace", "key", "second", expected_version=first)
        assert (second.value, second.ttl_seconds) == ("second", None)
        with pytest.raises(VersionConflictError) as caught:
            adapter.set("namespace", "key", "third", expected_version=first)
        error = caught.value
        assert (error.namespace, error.key) == ("namespace", "key")
        assert (error.expected_version, error.actual_version) == (first, second.version)
        assert adapter.get("namespace", "key").value == "second"
        assert ledger(adapter, "namespace") == (8, 1)

    def test_a_missing_or_expired_entry_has_no_version(self, adapter: KeyValueStoreAdapter) -> None:
        """An expected version never matches a missing or expired entry, whose actual version in the error is None."""
        version = adapter.set("namespace", "key", 1, ttl_seconds=SHORT_TTL_SECONDS).version
        wait_for_expiry(adapter, "namespace", "key")
        for key in ("key", "missing"):
            with pytest.raises(VersionConflictError) as caught:
                adapter.set("namespace", key, 2, expected_version=version)
            assert caught.value.actual_version is None
            assert not adapter.get("namespace", key).found
        adapter.sweep_expired()
        assert ledger(adapter, "namespace") == (0, 0)

    def test_compare_and_delete(self, adapter: KeyValueStoreAdapter) -> None:
        """``delete`` with a version raises if the entry is missing or was written since, and otherwise deletes it."""
        first = adapter.set("namespace", "key", 1).version
        second = adapter.set("namespace", "key", 2).version
        with pytest.raises(VersionConflictError):
            adapter.delete("namespace", "key", expected_version=first)
        assert adapter.delete("namespace", "key", expected_version=second).deleted
        with pytest.raises(VersionConflictError):
            adapter.delete("namespace", "key", expected_version=second)
        assert ledger(adapter, "namespace") == (0, 0)

    def test_set_if_absent(self, adapter: KeyValueStoreAdapter) -> None:
        """``if_absent`` creates an entry, and raises with the actual version if there is one."""
        first = adapter.set("namespace", "key", "mine", if_absent=True, ttl_seconds=60)
        assert (first.value, first.ttl_seconds) == ("mine", 60)
        with pytest.raises(VersionConflictError) as caught:
            adapter.set("namespace", "key", "theirs", if_absent=True)
        assert (caught.value.expected_version, caught.value.actual_version) == (None, first.version)
        assert adapter.get("namespace", "key").value == "mine"

    def test_an_expired_entry_is_absent(self, adapter: KeyValueStoreAdapter) -> None:
        """``if_absent`` replaces an expired entry."""
        adapter.set("namespace", "key", "old", ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        adapter.set("namespace", "key", "new", if_absent=True)
        assert adapter.get("namespace", "key").value == "new"
        assert ledger(adapter, "namespace") == (5, 1)

    def test_a_conditional_write_is_replayed_even_if_its_condition_fails_now(
        self, adapter: KeyValueStoreAdapter
    ) -> None:
        """A replay does not check the condition again: the first application itself made it false."""
        first = adapter.set("namespace", "key", 1, if_absent=True, operation_id="create")
        again = adapter.set("namespace", "key", 1, if_absent=True, operation_id="create")
        assert (again.replayed, again.version) == (True, first.version)
        second = adapter.set("namespace", "key", 2, expected_version=first.version, operation_id="swap")
        again = adapter.set("namespace", "key", 2, expected_version=first.version, operation_id="swap")
        assert (again.replayed, again.version) == (True, second.version)
        adapter.delete("namespace", "key", expected_version=second.version, operation_id="remove")
        assert adapter.delete("namespace", "key", expected_version=second.version, operation_id="remove").replayed

    def test_a_failed_condition_records_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """A write whose condition fails does not use up its operation id."""
        adapter.set("namespace", "key", 1)
        with pytest.raises(VersionConflictError):
            adapter.set("namespace", "key", 2, if_absent=True, operation_id="operation")
        assert not adapter.was_applied("namespace", "operation")
        adapter.delete("namespace", "key")
        assert not adapter.set("namespace", "key", 2, if_absent=True, operation_id="operation").replayed

    def test_another_condition_is_another_operation(self, adapter: KeyValueStoreAdapter) -> None:
        """``expected_version``, ``if_absent`` and ``keep_ttl`` are part of an operation's identity."""
        version = adapter.set("namespace", "key", 1, operation_id="operation").version
        for options in ({"expected_version": version}, {"if_absent": True}, {"keep_ttl": True}):
            with pytest.raises(IdempotencyConflictError):
                adapter.set("namespace", "key", 1, operation_id="operation", **options)

    @pytest.mark.parametrize("version", _BAD_VERSIONS)
    def test_bad_versions_are_refused(self, adapter: KeyValueStoreAdapter, version: Any) -> None:
        """An expected version must be an ``int`` from 1 to 2**63 - 1, or the call raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            adapter.set("namespace", "key", 1, expected_version=version)
        with pytest.raises(InvalidRequestError):
            adapter.delete("namespace", "key", expected_version=version)

    def test_options_that_contradict_each_other_are_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """Options that exclude each other, or a flag that is not a ``bool``, raise ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError, match="contradict"):
            adapter.set("namespace", "key", 1, expected_version=1, if_absent=True)
        with pytest.raises(InvalidRequestError, match="contradict"):
            adapter.set("namespace", "key", 1, keep_ttl=True, ttl_seconds=5)
        for option in ("if_absent", "keep_ttl"):
            with pytest.raises(InvalidRequestError, match=option):
                adapter.set("namespace", "key", 1, **{option: 1})  # type: ignore[arg-type]

    def test_threads_that_compare_and_set_lose_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """When several writes expect the same version, only one succeeds, so no update is lost."""
        adapter.set("namespace", "key", [])

        def append(number: int) -> None:
            while True:
                entry = adapter.get("namespace", "key")
                assert isinstance(entry.value, list)
                try:
                    adapter.set("namespace", "key", [*entry.value, number], expected_version=entry.version)
                except VersionConflictError:
                    continue
                return

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(append, range(40)))
        value = adapter.get("namespace", "key").value
        assert isinstance(value, list)
        assert sorted(value, key=repr) == sorted(range(40), key=repr)

    def test_conditional_operations_that_are_sent_at_once_are_applied_once(self, adapter: KeyValueStoreAdapter) -> None:
        """When several threads send one conditional operation at once, one applies it, and the others replay it."""
        rounds, threads = 20, 4
        first = [adapter.set("namespace", f"swap {number}", 0).version for number in range(rounds)]

        def send(number: int) -> list[tuple[int | None, bool]]:
            turn = number // threads
            options: dict[str, Any] = {"operation_id": f"swap {turn}", "expected_version": first[turn]}
            swapped = adapter.set("namespace", f"swap {turn}", [1, 2], **options)
            created = adapter.set("namespace", f"new {turn}", 1, if_absent=True, operation_id=f"new {turn}")
            kept = adapter.set("namespace", f"kept {turn}", 1, keep_ttl=True, operation_id=f"kept {turn}")
            options = {"operation_id": f"remove {turn}", "expected_version": swapped.version}
            removed = adapter.delete("namespace", f"swap {turn}", **options)
            assert removed.deleted
            written = ((each.version, each.replayed) for each in (swapped, created, kept))
            return [*written, (None, removed.replayed)]

        with ThreadPoolExecutor(threads) as pool:
            sent = list(pool.map(send, range(rounds * threads)))
        for turn in range(rounds):
            for results in zip(*sent[turn * threads : (turn + 1) * threads], strict=True):
                assert len({version for version, _ in results}) == 1
                assert sorted(replayed for _, replayed in results) == [False, True, True, True]
        assert adapter.recompute_ledgers().drifts == ()

    def test_only_one_of_several_threads_can_set_if_absent(self, adapter: KeyValueStoreAdapter) -> None:
        """When several threads write with ``if_absent``, exactly one creates the entry, and the others raise."""

        def claim(number: int) -> int | None:
            try:
                adapter.set("namespace", f"lock {number // 4}", number, if_absent=True)
            except VersionConflictError:
                return None
            return number

        with ThreadPoolExecutor(4) as threads:
            winners = [number for number in threads.map(claim, range(80)) if number is not None]
        assert [number // 4 for number in winners] == list(range(20))
        assert [adapter.get("namespace", f"lock {n}").value for n in range(20)] == winners
        assert ledger(adapter, "namespace")[1] == 20
