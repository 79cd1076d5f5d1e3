"""Errors between the caller and the worker, and the error of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvworker.errors.base import KVStoreError, UnknownOutcomeError, rebuild_error

#: Failures that a pipeline's message shows. ``errors`` has them all.
_MAX_SHOWN_FAILURES: Final = 3

#: The beginning of a ``QueueUnavailableError``'s detail if trying again would not help.
LOGIN_REFUSED: Final = "login refused: "
#: The beginning of a ``QueueUnavailableError``'s detail if the broker runs and did not take the message.
BROKER_ANSWERED: Final = "refused: "
#: The beginning of an error's detail if no answer can be read until an operator changes something.
RESULTS_REFUSED: Final = "results refused: "

_REFUSED_ANSWER: Final = (
    "the results' server refused this program: correct user, password or rights of queue.result_backend"
)


class PipelineError(KVStoreError):
    """Some operations of a pipeline failed, each on its own. All others were applied.

    ``failures`` holds each failed operation's tool, namespace and key, and its error's name and arguments, in
    the order in which they failed. If an outcome is unknown, repeat the pipeline with this ``idempotency_key``.
    """

    def __init__(self, idempotency_key: str, failures: Sequence[Sequence[Any]]) -> None:
        super().__init__(idempotency_key, [list(failure) for failure in failures])
        self.idempotency_key = idempotency_key

    @property
    def failures(self) -> list[list[Any]]:
        """The failed operations: tool, namespace, key, the error's name and its arguments."""
        failures: list[list[Any]] = self.args[1]
        return failures

    @property
    def errors(self) -> list[KVStoreError]:
        """The error of each failed operation, in the order of ``failures``."""
        return [rebuild_error(name, args) or KVStoreError(name) for *_, name, args in self.failures]

    def __str__(self) -> str:
        shown = [
            f"{tool} of {key!r} in namespace {namespace!r}: {error}"
            for (tool, namespace, key, *_), error in zip(self.failures[:_MAX_SHOWN_FAILURES], self.errors, strict=False)
        ]
        count = len(self.failures)
        more = f"; and {count - len(shown)} more" if count > len(shown) else ""
        operations = f"{count} operation{'s' if count != 1 else ''} of the pipeline {self.idempotency_key!r}"
        return f"{operations} failed: {'; '.join(shown)}{more}"


class QueueError(KVStoreError):
    """The queue between the caller and the worker failed."""


class _OperationError(QueueError):
    """The queue failed for one operation. ``operation_id`` names it."""

    reason = ""

    def __init__(self, operation_id: str, detail: str = "") -> None:
        super().__init__(operation_id, detail)
        self.operation_id = operation_id
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"operation {self.operation_id!r}: {self.reason}{detail}"


class QueueUnavailableError(_OperationError):
    """No broker accepted the message, or the results' server refuses this program. The operation was not applied."""

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Why the broker has no message, and what to do."""
        if self.detail.startswith(LOGIN_REFUSED):
            return (
                "the broker refused the login, so it was not applied; correct user, password or virtual host in"
                " queue.broker_url"
            )
        if self.detail.startswith(RESULTS_REFUSED):
            return f"it was not sent, so it was not applied; {_REFUSED_ANSWER}"
        return "no broker accepted the message within the timeout, so it was not applied"

    def __str__(self) -> str:
        if self.detail.startswith((LOGIN_REFUSED, RESULTS_REFUSED)):
            return super().__str__()
        remedy = "start the broker (`kvworker up` starts a local one), or correct queue.broker_url"
        if not self.detail:
            remedy = "is the broker running (`kvworker up` starts a local one), or is it or this process overloaded?"
        if self.detail.startswith(BROKER_ANSWERED):
            remedy = "the broker runs, so correct queue.broker_url or the broker"
        return f"{super().__str__()}; {remedy}"


class OperationNotSentError(QueueError):
    """An operation was not sent: its pipeline ended first, or too many calls were in flight.

    This attempt applied nothing. An earlier one with the same idempotency key may have been applied.
    """

    def __str__(self) -> str:
        return f"this attempt was not sent, so it applied nothing: {', '.join(map(str, self.args))}"


class OperationTimeoutError(_OperationError, UnknownOutcomeError):
    """No result arrived within the timeout, or none can be read; whether the operation was applied is unknown.

    Call again with ``idempotency_key=error.operation_id`` to have it applied exactly once. Do so before the store
    forgets the id: an id that you did not choose is kept for ``maintenance.generated_id_retention_seconds``, an hour by
    default. A read changes nothing, so you can simply call again.
    """

    def __init__(self, operation_id: str, detail: str = "", is_read: bool = False) -> None:  # noqa: FBT001, FBT002 - args rebuild it
        super().__init__(operation_id, detail)
        if is_read:
            self.args = (operation_id, detail, is_read)
        self._is_read = is_read

    @property
    def reason(self) -> str:  # type: ignore[override]
        """What is unknown, and what to do."""
        missing, remedy = "no result within the timeout", "is a worker running? run `kvworker doctor`"
        if self.detail.startswith(RESULTS_REFUSED):
            missing, remedy = "its result cannot be read", _REFUSED_ANSWER
        if self._is_read:
            return f"{missing} ({remedy}); you can call again"
        return (
            f"{missing}, so whether it was applied is unknown ({remedy}); call again soon, within an hour by default,"
            " with idempotency_key set to the operation id to have it applied exactly once"
        )


class OperationExpiredError(_OperationError):
    """The message waited in the queue for too long, so a worker dropped it and the operation was not applied.

    A worker drops a message that reaches it after its deadline. Under overload it drops a message that has waited for
    half of its timeout.
    """

    reason = "it waited in the queue for too long, so it was not applied"


class RedeliveryLimitError(_OperationError, UnknownOutcomeError):
    """The worker gave up the message after too many redeliveries; whether it was applied is unknown."""

    reason = "the worker gave up its message after too many redeliveries, so whether it was applied is unknown"


class OperationFailedError(_OperationError, UnknownOutcomeError):
    """The worker failed unexpectedly; whether the operation was applied is unknown."""

    reason = "the worker failed unexpectedly, so whether it was applied is unknown; see the worker's log"


class NestedCallError(QueueError):
    """A task called the store and would wait for a result that only its own worker can produce."""
