"""Cases: a namespace can have its own quota."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import GlobalQuotaExceededError, InvalidRequestError, NamespaceQuotaExceededError
from kvworker.model import LedgerUsage, Step
from kvworker.testing.support import AdapterFactory, Cases, text_of


class OwnQuotaCases(Cases):
    """Quotas of single namespaces."""

    @pytest.fixture
    def small(self, make_adapter: AdapterFactory) -> KeyValueStoreAdapter:
        """Make a store with 100 bytes for each namespace."""
        return make_adapter(namespace_quota_bytes=100)

    def test_a_larger_quota(self, small: KeyValueStoreAdapter) -> None:
        """A namespace's own quota, in bytes, replaces the configured one in checks, errors and usage."""
        result = small.set_quota("big", 200)
        assert (result.namespace, result.quota_bytes, result.replayed) == ("big", 200, False)
        small.set("big", "key", text_of(200))
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.set("big", "other", 1)
        assert (caught.value.quota_bytes, caught.value.used_bytes) == (200, 200)
        with pytest.raises(NamespaceQuotaExceededError):
            small.set("usual", "key", text_of(101))
        assert small.usage("big") == [LedgerUsage("big", 200, 1, 200)]

    def test_a_smaller_quota_keeps_stored_entries(self, small: KeyValueStoreAdapter) -> None:
        """A quota below the used bytes removes nothing: writes that shrink an entry pass, and growth is refused."""
        small.set("namespace", "key", text_of(90))
        small.set_quota("namespace", 50)
        assert small.get("namespace", "key").found
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.increment("namespace", "counter")
        assert (caught.value.quota_bytes, caught.value.used_bytes) == (50, 90)
        small.set("namespace", "key", text_of(60))
        with pytest.raises(NamespaceQuotaExceededError):
            small.set("namespace", "key", text_of(61))
        small.delete("namespace", "key")
        small.set("namespace", "key", text_of(50))

    def test_the_configured_quota_can_be_restored(self, small: KeyValueStoreAdapter) -> None:
        """``set_quota`` with None restores the configured quota and keeps the entries that exceed it."""
        small.set_quota("namespace", 500)
        small.set("namespace", "key", text_of(400))
        small.set_quota("namespace", None)
        assert small.usage("namespace") == [LedgerUsage("namespace", 400, 1, 100)]
        with pytest.raises(NamespaceQuotaExceededError):
            small.set("namespace", "other", 1)

    def test_it_outlives_entries_and_recomputes(self, small: KeyValueStoreAdapter) -> None:
        """A namespace keeps its own quota when it is cleared and when its ledger is recomputed."""
        small.set_quota("namespace", 200)
        small.set("namespace", "key", 1)
        small.clear("namespace")
        assert small.recompute_ledgers().drifts == ()
        assert small.usage("namespace") == [LedgerUsage("namespace", 0, 0, 200)]
        small.set("namespace", "key", text_of(150))

    def test_batches_must_keep_it(self, small: KeyValueStoreAdapter) -> None:
        """Batches, atomic or not, are refused by the namespace's own quota."""
        small.set_quota("namespace", 20)
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.batch("namespace", [Step("set", "a", value=text_of(21))])
        assert caught.value.quota_bytes == 20
        batch = small.batch("namespace", [Step("set", k, value=text_of(15)) for k in "ab"], atomic=False)
        assert isinstance(batch.results[1], NamespaceQuotaExceededError)
        assert batch.results[1].quota_bytes == 20

    def test_the_global_quota_still_holds(self, make_adapter: AdapterFactory) -> None:
        """A namespace's own quota does not raise the limit of the whole store."""
        adapter = make_adapter(namespace_quota_bytes=100, global_quota_bytes=150)
        adapter.set_quota("namespace", 1000)
        with pytest.raises(GlobalQuotaExceededError):
            adapter.set("namespace", "key", text_of(151))

    def test_it_is_replayed(self, small: KeyValueStoreAdapter) -> None:
        """A replayed ``set_quota`` does not replace a quota that was set since."""
        small.set_quota("namespace", 500, operation_id="operation")
        small.set_quota("namespace", 200)
        assert small.set_quota("namespace", 500, operation_id="operation").replayed
        assert small.usage("namespace")[0].quota_bytes == 200

    @pytest.mark.parametrize("quota_bytes", [0, -1, True, 1.0, "1", 2**62 + 1])
    def test_bad_quotas_are_refused(self, small: KeyValueStoreAdapter, quota_bytes: Any) -> None:
        """A quota must be an ``int`` from 1 to 2**62 bytes, or the call raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            small.set_quota("namespace", quota_bytes)
