"""Imports JSON lines in batches, and reports what became of each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kvworker.client.sync import KeyValueStore, QueuedResult
from kvworker.errors import (
    InvalidRequestError,
    KVStoreError,
    OperationExpiredError,
    OperationTimeoutError,
    QueueUnavailableError,
    StoreUnavailableError,
    VersionConflictError,
)
from kvworker.model import BatchResult
from kvworker.ops.entry_lines import parse_line, superseded_lines
from kvworker.ops.import_calls import EntryBatch, ImportCall, QuotaLine
from kvworker.ops.import_report import ImportReport, LineError

# Two imports of a file must group its lines in the same way, so that a repeated batch is the same one.
_BATCH_BYTES = 262_144
_OPEN_BATCHES = 64
#: A line takes less than this many times its size in a message, with all that a message holds besides.
_MESSAGE_FACTOR = 16
# Enough to keep several workers busy, and few enough that none reaches its deadline in the queue.
_MAX_IN_FLIGHT = 8
_ATTEMPTS = 3
# After these errors, another attempt with the same idempotency key can succeed.
_TRANSIENT = (OperationTimeoutError, OperationExpiredError, StoreUnavailableError)


class Importer:
    """Sends the lines of a file in batches, several at a time, each with its own idempotency key.

    Args:
        store: The facade to send them through.
        import_id: The prefix of the idempotency keys. Importing the same file again with the same id applies no line
            twice.
        timeout: The bound on each call, in seconds; None takes the facade's.
        stop_on_error: Stop at the first batch with a line that fails.
        only_absent: Leave entries as they are that exist already.
    """

    def __init__(
        self,
        store: KeyValueStore,
        import_id: str,
        *,
        timeout: float | None,
        stop_on_error: bool = False,
        only_absent: bool = False,
    ) -> None:
        self.report = ImportReport()
        self._options = {"if_absent": True} if only_absent else {}
        self._store = store
        self._import_id = import_id
        self._timeout = timeout
        self._stop_on_error = stop_on_error
        self._max_line_bytes = store.settings.queue.max_message_bytes
        self._batch_bytes = min(_BATCH_BYTES, self._max_line_bytes // _MESSAGE_FACTOR)
        self._seen: set[int] = set()
        self._superseded: frozenset[int] | None = None
        self._read_lines: Callable[[], Iterable[bytes]] = tuple
        self._open: dict[str, EntryBatch] = {}
        self._in_flight: deque[tuple[ImportCall, QueuedResult]] = deque()

    def run(self, read_lines: Callable[[], Iterable[bytes]], on_line: Callable[[int], object]) -> ImportReport:
        """Import every line, or stop at the first error if the importer was told to.

        ``report`` is complete even if this ends by an error or an interrupt.

        Args:
            read_lines: Reads the lines, each a JSON object. Blank lines are skipped. If an earlier import was refused
                lines, it is called a second time, while the first reading continues.
            on_line: Called with the size of each line in bytes, once the line has been read.

        Raises:
            QueueUnavailableError: No broker answers, so the remaining lines would fail too.
            OperationTimeoutError, OperationExpiredError, StoreUnavailableError: No worker or no database answered, not
                even the third time, so the remaining lines would fail too.
        """
        self._read_lines = read_lines
        try:
            for number, line in enumerate(read_lines(), start=1):
                if self._must_stop():
                    break
                if line.strip():
                    self._take_line(number, line)
                on_line(len(line))
            # The batches that are still open keep the same lines when the import is repeated, so they are not sent now.
            while self._open and not self._must_stop():
                self._send_open(next(iter(self._open)))
            while self._in_flight:
                self._await_oldest()
        finally:
            self.report.unanswered = sum(len(call.numbers) for call, _ in self._in_flight)
            self.report.errors.sort(key=lambda error: error.line)
        return self.report

    def _must_stop(self) -> bool:
        return self._stop_on_error and bool(self.report.errors)

    def _take_line(self, number: int, line: bytes) -> None:
        try:
            arguments = parse_line(line, self._max_line_bytes)
        except InvalidRequestError as error:
            self._fail([number], error)
            return
        if "quota_bytes" in arguments:
            if arguments["namespace"] in self._open:
                self._send_open(arguments["namespace"])
            self._send(QuotaLine(number, arguments))
        else:
            self._note_key(number, arguments)
            self._add_to_batch(number, arguments, len(line))

    def _note_key(self, number: int, arguments: dict[str, Any]) -> None:
        name = hash((arguments["namespace"], arguments["key"]))
        if name in self._seen:
            self.report.repeated.append(number)
        self._seen.add(name)

    def _add_to_batch(self, number: int, arguments: dict[str, Any], line_bytes: int) -> None:
        namespace = arguments.pop("namespace")
        if namespace in self._open:
            if not self._open[namespace].has_room(line_bytes, self._batch_bytes):
                self._send_open(namespace)
        elif len(self._open) >= _OPEN_BATCHES:
            self._send_open(next(iter(self._open)))
        batch = self._open.setdefault(namespace, EntryBatch(namespace))
        batch.add(number, {"tool": "kv_set", **arguments, **self._options}, line_bytes)

    def _send_open(self, namespace: str) -> None:
        self._send(self._open.pop(namespace))

    def _send(self, call: ImportCall) -> None:
        while len(self._in_flight) >= _MAX_IN_FLIGHT or any(sent.conflicts(call) for sent, _ in self._in_flight):
            self._await_oldest()
        try:
            self._in_flight.append((call, self._submit(call)))
        except QueueUnavailableError:
            raise
        except KVStoreError as error:
            self._fail(call.numbers, error)

    def _await_oldest(self) -> None:
        call, pending = self._in_flight[0]
        try:
            result = self._outcome(call, pending)
        except (QueueUnavailableError, *_TRANSIENT):
            raise
        except KVStoreError as error:
            self._in_flight.popleft()
            self._fail(call.numbers, error)
            return
        self._in_flight.popleft()
        if isinstance(call, EntryBatch):
            self._count_batch(call, result)
        else:
            self._count(replayed=result.replayed)

    def _outcome(self, call: ImportCall, pending: QueuedResult) -> Any:
        for _ in range(_ATTEMPTS - 1):
            try:
                return pending.result()
            except _TRANSIENT:
                pending = self._submit(call)
        return pending.result()

    def _submit(self, call: ImportCall) -> QueuedResult:
        return self._store.submit(*call.call(self._import_id), timeout=self._timeout)

    def _count_batch(self, batch: EntryBatch, result: BatchResult) -> None:
        refusals: dict[int, KVStoreError] = {}
        for place, outcome in enumerate(result.results):
            if isinstance(outcome, VersionConflictError):
                self.report.present += 1
            elif isinstance(outcome, KVStoreError):
                refusals[place] = outcome
            else:
                self._count(replayed=result.replayed)
        # A refusal of just now is final; one that an earlier import recorded may no longer hold.
        again = [place for place in refusals if result.replayed and not self._is_superseded(batch.numbers[place])]
        for place in refusals.keys() - set(again):
            self._fail([batch.numbers[place]], refusals[place])
        if again:
            self._send(batch.next_round(again))

    def _is_superseded(self, number: int) -> bool:
        """Return whether a later line writes the same key, which may be applied already, so it must not be replaced."""
        if self._superseded is None:
            self._superseded = superseded_lines(self._read_lines(), self._max_line_bytes)
        return number in self._superseded

    def _count(self, *, replayed: bool) -> None:
        if replayed:
            self.report.replayed += 1
        else:
            self.report.applied += 1

    def _fail(self, numbers: Iterable[int], error: KVStoreError) -> None:
        self.report.errors.extend(LineError(number, str(error)) for number in numbers)
