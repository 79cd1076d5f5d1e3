"""Fixtures and helpers that the cases share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.model import LedgerUsage

#: Long enough for an operation or two before it passes, short enough to wait for.
SHORT_TTL_SECONDS = 0.08


class AdapterFactory(Protocol):
    """Makes adapters over the test's store."""

    def __call__(
        self,
        *,
        namespace_quota_bytes: int = ...,
        global_quota_bytes: int | None = ...,
        operation_retention_seconds: float = ...,
    ) -> KeyValueStoreAdapter:
        """Make an adapter with these settings and defaults for the others."""


class Cases:
    """The base of all cases, with an adapter of default settings."""

    @pytest.fixture
    def adapter(self, make_adapter: AdapterFactory) -> KeyValueStoreAdapter:
        """Make the adapter that most cases use."""
        return make_adapter()


def eventually(condition: Callable[[], bool], *, timeout_seconds: float = 10.0) -> None:
    """Wait until the condition holds.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"the condition did not hold within {timeout_seconds} s")
        time.sleep(0.005)


def wait_for_expiry(adapter: KeyValueStoreAdapter, namespace: str, *keys: str) -> None:
    """Wait until the store itself no longer finds the entries."""
    eventually(lambda: not any(adapter.get(namespace, key).found for key in keys))


def text_of(size_bytes: int) -> str:
    """Return a string whose JSON has this size, at least 2 bytes."""
    return "x" * (size_bytes - 2)


def version_of(adapter: KeyValueStoreAdapter, namespace: str, key: str) -> int:
    """Return the version of an existing entry."""
    version = adapter.get(namespace, key).version
    assert version is not None  # noqa: S101 - part of the suite
    return version


def ledger(adapter: KeyValueStoreAdapter, namespace: str) -> tuple[int, int]:
    """Return a namespace's used bytes and its number of entries."""
    (usage,) = adapter.usage(namespace)
    return usage.used_bytes, usage.entry_count


def global_ledger(adapter: KeyValueStoreAdapter) -> LedgerUsage:
    """Return the global ledger, which comes last."""
    usage = adapter.usage()[-1]
    assert usage.namespace is None  # noqa: S101 - part of the suite
    return usage
