"""How a pipeline's batches are sent, and what their answers mean for its operations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from kvworker.client.base import KeyValueOperations, PendingResult
from kvworker.client.pipeline.batches import Batch, Group, PipelinedResult
from kvworker.client.pipeline.mailbox import Bell
from kvworker.errors import (
    KVStoreError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    ReadTooLargeError,
)
from kvworker.model import BatchResult

#: The result of a message, or its error.
Answer: TypeAlias = Any

LEFT_BY_AN_ERROR: Final = "the pipeline's with block was left by an error"


def answer_of(pending: PendingResult) -> Answer:
    """The result of a message, or its error."""
    try:
        return pending.result()
    except KVStoreError as error:
        return error


class Delivery:
    """The operations of one pipeline on their way, each namespace's one message after the other."""

    def __init__(self, store: KeyValueOperations, idempotency_key: str, timeout_seconds: float) -> None:
        self._store = store
        self._idempotency_key = idempotency_key
        self._timeout_seconds = timeout_seconds
        self._groups: dict[str, Group] = {}
        self._under_way: dict[str, tuple[Batch, PendingResult]] = {}
        self._answered: Bell[tuple[Group, PendingResult]] = Bell()
        self._failed: list[PipelinedResult[Any]] = []

    def add(self, handle: PipelinedResult[Any], size_bytes: int) -> None:
        """Take an operation, and send what may be sent without waiting."""
        give_up_at = time.monotonic() + self._timeout_seconds
        namespace = handle.arguments["namespace"]
        group = self._groups.setdefault(namespace, Group(namespace))
        group.add(handle, size_bytes)
        self._send_next(group, give_up_at)
        self._take_answers(give_up_at)

    def rounds(self) -> Iterator[tuple[Future[None], float]]:
        """Send everything; yields what to wait for, and how many seconds at most, until all is answered."""
        give_up_at = time.monotonic() + self._timeout_seconds
        for group in self._groups.values():
            group.close()
            self._send_next(group, give_up_at)
        while True:
            self._take_answers(give_up_at)
            if not self._under_way:
                return
            seconds = give_up_at - time.monotonic()
            if seconds <= 0:
                self._give_up(give_up_at)
                return
            yield self._answered.expect(), seconds

    def report(self, *, is_error: bool) -> None:
        """Raise the errors since the last report that the caller has not met yet, if that is asked for.

        Raises:
            PipelineError: there are some.
        """
        failed = [handle for handle in self._failed if not handle.is_told]
        self._failed = []
        if failed and is_error:
            raise self._error(failed)

    def end(self, reason: str) -> None:
        """Send nothing more, and give what has no outcome one that tells the reason."""
        for group in self._groups.values():
            self._fail(group.take_waiting(), OperationNotSentError(reason))
        self._take_answers(0.0)
        for namespace in list(self._under_way):
            self._settle(self._groups[namespace], OperationTimeoutError(self._idempotency_key, reason))

    def _take_answers(self, give_up_at: float) -> None:
        while answered := self._answered.take():
            for group, pending in answered:
                # A message that was given up may still be answered.
                if pending is self._under_way.get(group.namespace, (None, None))[1]:
                    self._settle(group, answer_of(pending))
                    self._send_next(group, give_up_at)

    def _give_up(self, give_up_at: float) -> None:
        for namespace, (_, pending) in list(self._under_way.items()):
            group = self._groups[namespace]
            self._settle(group, answer_of(pending))
            self._send_next(group, give_up_at)

    def _send_next(self, group: Group, give_up_at: float) -> None:
        if not group.waiting or group.namespace in self._under_way:
            return
        remaining_seconds = give_up_at - time.monotonic()
        if group.failure or remaining_seconds <= 0:
            self._stop(group, OperationNotSentError("the time for the flush was over before its turn came"))
            return
        batch = group.waiting.popleft()
        try:
            pending = self._store.submit(*batch.call(self._idempotency_key), timeout=remaining_seconds)
        except KVStoreError as error:
            self._fail_batch(group, batch, error)
            return
        self._under_way[group.namespace] = batch, pending
        pending.when_done(lambda: self._answered.ring((group, pending)))

    def _settle(self, group: Group, answer: Answer) -> None:
        """Hand the answer of the message that is under way to its operations."""
        batch, pending = self._under_way.pop(group.namespace)
        if isinstance(answer, ReadTooLargeError) and (halves := batch.halves()):
            group.waiting.extendleft(halves)
        elif isinstance(answer, KVStoreError):
            self._fail_batch(group, batch, self._as_own(answer, pending.operation_id))
        else:
            self._hand_out(group, batch, answer.results if isinstance(answer, BatchResult) else (answer,))

    def _hand_out(self, group: Group, batch: Batch, results: Sequence[object]) -> None:
        if len(results) != len(batch.handles):
            detail = f"{len(results)} results of {len(batch.handles)} operations"
            self._fail_batch(group, batch, OperationFailedError(self._idempotency_key, detail))
            return
        for handle, result in zip(batch.handles, results, strict=True):
            handle.outcome = result
            if isinstance(result, KVStoreError):
                self._failed.append(handle)

    def _fail_batch(self, group: Group, batch: Batch, error: KVStoreError) -> None:
        self._fail(batch.handles, error)
        self._stop(group, error)

    def _stop(self, group: Group, failure: KVStoreError) -> None:
        """Send nothing more of a namespace: it could overtake what failed, or come before its repetition."""
        group.failure = group.failure or failure
        unsent = group.failure
        if not isinstance(unsent, OperationNotSentError):
            unsent = OperationNotSentError(f"an earlier message of namespace {group.namespace!r} failed: {unsent}")
        self._fail(group.take_waiting(), unsent)

    def _fail(self, handles: Iterable[PipelinedResult[Any]], error: KVStoreError) -> None:
        for handle in handles:
            handle.outcome = error
            self._failed.append(handle)

    def _as_own(self, error: KVStoreError, operation_id: str) -> KVStoreError:
        """The error with the pipeline's key, which the caller can use, in the place of the message's operation id."""
        if operation_id not in error.args:
            return error
        return type(error)(*(self._idempotency_key if arg == operation_id else arg for arg in error.args))

    def _error(self, failed: list[PipelinedResult[Any]]) -> PipelineError:
        failures = []
        for handle in failed:
            error = handle.outcome
            args = list(error.args) if isinstance(error, KVStoreError) else []
            where = [handle.tool.name, handle.arguments["namespace"], handle.arguments["key"]]
            failures.append([*where, type(error).__name__, args])
        return PipelineError(self._idempotency_key, failures)
