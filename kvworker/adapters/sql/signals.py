"""Signals: exceptions by which a dialect tells the shared core how a statement ended. No caller ever sees them."""

from __future__ import annotations

from typing import Final

from kvworker.adapters.sql.write import Quota, Record


class RetryableError(Exception):
    """The work may run again. If that does not help, the store is unavailable for this ``reason``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLostError(RetryableError):
    """The connection broke while it was in use; the operation may have been applied."""


class ConflictError(RetryableError):
    """The database rolled the transaction back in favor of another one."""


class DuplicateOperationError(Exception):
    """The same operation id was recorded while this write ran, so the write was rolled back."""


class AlreadyRecordedError(Exception):
    """The operation id already has a ``record``; the transaction must be rolled back."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class NotAnIntegerError(Exception):
    """The stored value is not an integer."""


class OutOfRangeError(Exception):
    """The sum is not a signed 64-bit integer."""


class QuotaRefusedError(Exception):
    """A check refused the write; ``requested_bytes`` is its growth, or 0 if unknown.

    A plain statement does not know its growth. After a refusal the write is planned, which makes the growth known.
    """

    def __init__(self, quota: Quota, requested_bytes: int = 0) -> None:
        super().__init__(quota, requested_bytes)
        self.quota = quota
        self.requested_bytes = requested_bytes


class NamespaceMissingError(Exception):
    """The namespace has no ledger yet, so the write was rolled back: it must be founded first."""


#: The signals that end a single write. ``Writer`` turns each into a record or an error.
SIGNALS: Final = (DuplicateOperationError, NotAnIntegerError, OutOfRangeError, QuotaRefusedError, NamespaceMissingError)
