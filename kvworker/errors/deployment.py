"""Errors that an operator must fix: the configuration, the schema or the database."""

from __future__ import annotations

from kvworker.errors.base import KVStoreError, UnknownOutcomeError


def extra_needed(what: str, extra: str) -> str:
    """Say how to install an optional dependency. There is no release on a package index."""
    return f"{what} needs the extra `{extra}`: run `pip install '.[{extra}]'` in a copy of kvworker's repository"


class ConfigurationError(KVStoreError):
    """The configuration is wrong. The message names the path, the value and the fix."""


class SchemaError(KVStoreError):
    """The database's schema is missing or of another version; run ``kvworker migrate``."""


class StoreUnavailableError(UnknownOutcomeError):
    """The database cannot be reached or is too busy; whether a write was applied is unknown.

    Call again with ``idempotency_key=error.operation_id`` to apply the write exactly once. The id is empty if
    an adapter was called without one.
    """

    def __init__(self, detail: str, operation_id: str = "") -> None:
        super().__init__(detail, operation_id)
        self.detail = detail
        self.operation_id = operation_id

    def __str__(self) -> str:
        if not self.operation_id:
            return self.detail
        return f"operation {self.operation_id!r}: {self.detail}; try again with the same idempotency key"
