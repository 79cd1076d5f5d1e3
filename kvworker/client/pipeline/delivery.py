"""Sends a pipeline's batches, and gives their answers to its operations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from kvworker.client.base import KeyValueOperations, PendingResult
from kvworker.client.pipeline.batches import Batch, NamespaceBatches, PipelinedResult
from kvworker.client.pipeline.mailbox import Mailbox
from kvworker.errors import (
    KVStoreError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    ReadTooLargeError,
)
from kvworker.model import BatchResult
from kvworker.wording import counted

#: The result of a message, or its error.
Answer: TypeAlias = Any

LEFT_BY_AN_ERROR: Final = "the pipeline's with block was left by an error"


class Delivery:
    """Delivers the operations of one pipeline. Each namespace has at most one message in flight.

    Args:
        store: The store that sends the messages.
        idempotency_key: The pipeline's key.
        timeout_seconds: Bound of each flush.
    """

    def __init__(self, store: KeyValueOperations, idempotency_key: str, timeout_seconds: float) -> None:
        self._store = store
        self._idempotency_key = idempotency_key
        self._timeout_seconds = timeout_seconds
        self._namespaces: dict[str, NamespaceBatches] = {}
        self._in_flight: dict[str, tuple[Batch, PendingResult]] = {}
        self._answered: Mailbox[tuple[NamespaceBatches, PendingResult]] = Mailbox()
        self._failed: list[PipelinedResult[Any]] = []

    def add(self, handle: PipelinedResult[Any], size_bytes: int) -> None:
        """Collect an operation, and send whatever can be sent without waiting."""
        give_up_at = time.monotonic() + self._timeout_seconds
        namespace = handle.arguments["namespace"]
        batches = self._namespaces.setdefault(namespace, NamespaceBatches(namespace))
        batches.add(handle, size_bytes)
        self._send_next(batches, give_up_at)
        self._process_answers(give_up_at)

    def deliver(self) -> Iterator[tuple[Future[None], float]]:
        """Send everything. Yields a future to wait for and the most seconds to wait, until all is answered."""
        give_up_at = time.monotonic() + self._timeout_seconds
        for batches in self._namespaces.values():
            batches.make_batches()
            self._send_next(batches, give_up_at)
        while True:
            self._process_answers(give_up_at)
            if not self._in_flight:
                return
            seconds = give_up_at - time.monotonic()
            if seconds <= 0:
                self._give_up(give_up_at)
                return
            yield self._answered.next_arrival(), seconds

    def report_failures(self, *, raise_on_error: bool) -> None:
        """Forget the failures since the last report, and raise those that no handle has raised.

        Raises:
            PipelineError: There are such failures, and ``raise_on_error`` is true.
        """
        unnoticed = [handle for handle in self._failed if not handle.has_raised]
        self._failed = []
        if unnoticed and raise_on_error:
            raise self._pipeline_error(unnoticed)

    def end(self, reason: str) -> None:
        """Send nothing more, and give the operations without an outcome an error with this reason."""
        for batches in self._namespaces.values():
            self._fail(batches.pop_unsent(), OperationNotSentError(reason))
        self._process_answers(0.0)
        for namespace in list(self._in_flight):
            self._apply_answer(self._namespaces[namespace], OperationTimeoutError(self._idempotency_key, reason))

    def _process_answers(self, give_up_at: float) -> None:
        while answered := self._answered.pop_all():
            for batches, pending in answered:
                # The answer may belong to a message that was given up.
                if pending is self._in_flight.get(batches.namespace, (None, None))[1]:
                    self._apply_answer(batches, _answer_of(pending))
                    self._send_next(batches, give_up_at)

    def _give_up(self, give_up_at: float) -> None:
        for namespace, (_, pending) in list(self._in_flight.items()):
            batches = self._namespaces[namespace]
            self._apply_answer(batches, _answer_of(pending))
            self._send_next(batches, give_up_at)

    def _send_next(self, batches: NamespaceBatches, give_up_at: float) -> None:
        if not batches.ready or batches.namespace in self._in_flight:
            return
        remaining_seconds = give_up_at - time.monotonic()
        if batches.failure or remaining_seconds <= 0:
            self._stop(batches, OperationNotSentError("the flush timed out before this operation's turn"))
            return
        batch = batches.ready.popleft()
        try:
            pending = self._store.submit(*batch.as_call(self._idempotency_key), timeout=remaining_seconds)
        except KVStoreError as error:
            self._fail_batch(batches, batch, error)
            return
        self._in_flight[batches.namespace] = batch, pending
        pending.when_done(lambda: self._answered.put((batches, pending)))

    def _apply_answer(self, batches: NamespaceBatches, answer: Answer) -> None:
        """Give the answer to the message in flight to its operations."""
        batch, pending = self._in_flight.pop(batches.namespace)
        if isinstance(answer, ReadTooLargeError) and (halves := batch.split()):
            batches.ready.extendleft(halves)
        elif isinstance(answer, KVStoreError):
            self._fail_batch(batches, batch, self._with_pipeline_key(answer, pending.operation_id))
        else:
            self._distribute(batches, batch, answer.results if isinstance(answer, BatchResult) else (answer,))

    def _distribute(self, batches: NamespaceBatches, batch: Batch, results: Sequence[object]) -> None:
        if len(results) != len(batch.handles):
            detail = f"{counted(len(results), 'result')} for {counted(len(batch.handles), 'operation')}"
            self._fail_batch(batches, batch, OperationFailedError(self._idempotency_key, detail))
            return
        for handle, result in zip(batch.handles, results, strict=True):
            handle.outcome = result
            if isinstance(result, KVStoreError):
                self._failed.append(handle)

    def _fail_batch(self, batches: NamespaceBatches, batch: Batch, error: KVStoreError) -> None:
        self._fail(batch.handles, error)
        self._stop(batches, error)

    def _stop(self, batches: NamespaceBatches, failure: KVStoreError) -> None:
        """Send nothing more of a namespace. It could overtake the failed message, or a repetition of it."""
        batches.failure = batches.failure or failure
        unsent = batches.failure
        if not isinstance(unsent, OperationNotSentError):
            unsent = OperationNotSentError(f"an earlier message of namespace {batches.namespace!r} failed: {unsent}")
        self._fail(batches.pop_unsent(), unsent)

    def _fail(self, handles: Iterable[PipelinedResult[Any]], error: KVStoreError) -> None:
        for handle in handles:
            handle.outcome = error
            self._failed.append(handle)

    def _with_pipeline_key(self, error: KVStoreError, operation_id: str) -> KVStoreError:
        """Replace the message's operation id by the pipeline's key, which is the one that the caller can use."""
        if operation_id not in error.args:
            return error
        return type(error)(*(self._idempotency_key if arg == operation_id else arg for arg in error.args))

    def _pipeline_error(self, failed: list[PipelinedResult[Any]]) -> PipelineError:
        failures = []
        for handle in failed:
            error = handle.outcome
            args = list(error.args) if isinstance(error, KVStoreError) else []
            operation = [handle.tool.name, handle.arguments["namespace"], handle.arguments["key"]]
            failures.append([*operation, type(error).__name__, args])
        return PipelineError(self._idempotency_key, failures)


def _answer_of(pending: PendingResult) -> Answer:
    try:
        return pending.result()
    except KVStoreError as error:
        return error
