"""Cases: changing an entry's expiry without its value, and its value without its expiry."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import math
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import BatchRefusedError, IdempotencyConflictError, InvalidTTLError, VersionConflictError
from kvworker.model import Step
from kvworker.testing.support import SHORT_TTL_SECONDS, Cases, ledger, version_of, wait_for_expiry


class ExpiryCases(Cases):
    """Touch, persist and keep_ttl."""

    def test_touch_changes_the_expiry(self, adapter: KeyValueStoreAdapter) -> None:
        """``touch`` replaces the remaining seconds and leaves the value and its version."""
        version = adapter.set("namespace", "key", {"a": 1}).version
        touched = adapter.touch("namespace", "key", 60)
        assert (touched.found, touched.ttl_seconds, touched.version, touched.replayed) == (True, 60, version, False)
        entry = adapter.get("namespace", "key")
        assert (entry.value, entry.version) == ({"a": 1}, version)
        assert entry.ttl_seconds is not None
        assert 0 < entry.ttl_seconds <= 60.01
        adapter.touch("namespace", "key", SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")

    def test_persist_removes_the_expiry(self, adapter: KeyValueStoreAdapter) -> None:
        """After ``persist`` an entry never expires, and its value and version are the same."""
        version = adapter.set("namespace", "key", "kept", ttl_seconds=60).version
        assert adapter.persist("namespace", "key").to_dict() == {
            "namespace": "namespace",
            "key": "key",
            "found": True,
            "replayed": False,
            "version": version,
        }
        entry = adapter.get("namespace", "key")
        assert (entry.value, entry.ttl_seconds) == ("kept", None)

    def test_missing_and_expired_entries_are_not_found(self, adapter: KeyValueStoreAdapter) -> None:
        """``touch`` and ``persist`` return ``found=False`` for a missing or expired entry and do not revive it."""
        adapter.set("namespace", "expired", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "expired")
        for key in ("expired", "missing"):
            missed = adapter.touch("namespace", key, 60, operation_id=f"touch {key}")
            assert missed.to_dict() == {"namespace": "namespace", "key": key, "found": False, "replayed": False}
            assert not adapter.persist("namespace", key).found
            assert not adapter.get("namespace", key).found
            assert adapter.touch("namespace", key, 60, operation_id=f"touch {key}").to_dict()["replayed"] is True

    def test_the_ledger_does_not_change(self, adapter: KeyValueStoreAdapter) -> None:
        """A change of expiry leaves the used bytes and the number of entries, whether the entry exists or not."""
        adapter.set("namespace", "key", 12345)
        adapter.touch("namespace", "key", 60)
        adapter.persist("namespace", "key")
        adapter.touch("namespace", "missing", 60)
        assert ledger(adapter, "namespace") == (5, 1)

    def test_both_are_replayed(self, adapter: KeyValueStoreAdapter) -> None:
        """A replay leaves the present expiry, and the same id with another TTL or method is a conflict."""
        adapter.set("namespace", "key", 1)
        adapter.touch("namespace", "key", 60, operation_id="touch")
        adapter.persist("namespace", "key", operation_id="persist")
        again = adapter.touch("namespace", "key", 60, operation_id="touch")
        assert again.replayed
        assert again.ttl_seconds is not None
        assert 0 < again.ttl_seconds <= 60.01
        assert adapter.get("namespace", "key").ttl_seconds is None
        assert adapter.persist("namespace", "key", operation_id="persist").replayed
        with pytest.raises(IdempotencyConflictError):
            adapter.touch("namespace", "key", 61, operation_id="touch")
        with pytest.raises(IdempotencyConflictError):
            adapter.persist("namespace", "key", operation_id="touch")

    @pytest.mark.parametrize("ttl_seconds", [0, -1, True, math.nan, math.inf, "5", None])
    def test_bad_ttls_are_refused(self, adapter: KeyValueStoreAdapter, ttl_seconds: Any) -> None:
        """``touch`` raises ``InvalidTTLError`` unless the TTL is a positive finite number of seconds."""
        adapter.set("namespace", "key", 1)
        with pytest.raises(InvalidTTLError):
            adapter.touch("namespace", "key", ttl_seconds)
        assert adapter.get("namespace", "key").ttl_seconds is None

    def test_keep_ttl_keeps_the_ttl(self, adapter: KeyValueStoreAdapter) -> None:
        """``set`` with ``keep_ttl`` replaces the value, keeps the expiry and returns the remaining seconds."""
        adapter.set("namespace", "key", 1, ttl_seconds=60)
        kept = adapter.set("namespace", "key", 2, keep_ttl=True)
        assert kept.ttl_seconds is not None
        assert 0 < kept.ttl_seconds <= 60.01
        entry = adapter.get("namespace", "key")
        assert entry.value == 2
        assert entry.ttl_seconds is not None

    def test_keep_ttl_without_a_ttl_to_keep(self, adapter: KeyValueStoreAdapter) -> None:
        """``keep_ttl`` gives an entry without a TTL if the old one had none, is missing or has expired."""
        adapter.set("namespace", "key", 1)
        assert adapter.set("namespace", "key", 2, keep_ttl=True).ttl_seconds is None
        assert adapter.set("namespace", "new", 2, keep_ttl=True).ttl_seconds is None
        adapter.set("namespace", "expired", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "expired")
        assert adapter.set("namespace", "expired", 2, keep_ttl=True).ttl_seconds is None
        assert adapter.get("namespace", "expired").value == 2

    def test_keep_ttl_works_with_an_expected_version(self, adapter: KeyValueStoreAdapter) -> None:
        """``keep_ttl`` and ``expected_version`` can be combined in one write."""
        adapter.set("namespace", "key", 1, ttl_seconds=60)
        version = version_of(adapter, "namespace", "key")
        kept = adapter.set("namespace", "key", 2, keep_ttl=True, expected_version=version)
        assert kept.ttl_seconds is not None

    def test_touch_and_persist_can_expect_a_version(self, adapter: KeyValueStoreAdapter) -> None:
        """With the entry's version they change the expiry, and a replay needs the same expectation."""
        version = adapter.set("namespace", "key", 1).version or 0
        assert adapter.touch("namespace", "key", 60, expected_version=version).version == version
        options: dict[str, Any] = {"expected_version": version, "operation_id": "persist"}
        assert [adapter.persist("namespace", "key", **options).replayed for _ in range(2)] == [False, True]
        with pytest.raises(IdempotencyConflictError):
            adapter.persist("namespace", "key", operation_id="persist")
        assert adapter.get("namespace", "key").ttl_seconds is None

    def test_another_version_keeps_its_expiry(self, adapter: KeyValueStoreAdapter) -> None:
        """Another version, or a missing entry, raises ``VersionConflictError``, in batches too."""
        old = adapter.set("namespace", "key", 1).version or 0
        version = adapter.set("namespace", "key", 2, ttl_seconds=600).version or 0
        for key, expected in (("key", old), ("missing", version)):
            with pytest.raises(VersionConflictError):
                adapter.touch("namespace", key, 5, expected_version=expected)
            with pytest.raises(VersionConflictError):
                adapter.persist("namespace", key, expected_version=expected)
            steps = [Step("touch", key, ttl_seconds=5, expected_version=expected), Step("set", "other", value=1)]
            with pytest.raises(BatchRefusedError):
                adapter.batch("namespace", steps)
            refused, _ = adapter.batch("namespace", steps, atomic=False).results
            assert isinstance(refused, VersionConflictError)
        assert 300 < (adapter.get("namespace", "key").ttl_seconds or 0) <= 600.01
