"""The worker application without anything that counts: ``celery -A benchmarks.unobserved worker``."""

from __future__ import annotations

from kvworker.worker import runtime
from kvworker.worker.reporting import TaskReporter
from tasks import app


class _SilentReporter(TaskReporter):
    """Reports nothing."""

    def succeeded(self, *_: object) -> None:
        """Ignore a result."""

    def failed(self, *_: object) -> None:
        """Ignore an error."""

    def applied_many(self, *_: object) -> None:
        """Ignore coalesced calls."""


vars(runtime)["TaskReporter"] = _SilentReporter

__all__ = ["app"]
