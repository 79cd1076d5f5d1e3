"""Imports JSON lines in batches, and reports what became of each line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kvworker.client.sync import KeyValueStore, QueuedResult
from kvworker.errors import (
    InvalidRequestError,
    KVStoreError,
    OperationExpiredError,
    OperationTimeoutError,
    PolicyDeniedError,
    QueueUnavailableError,
    StoreUnavailableError,
    VersionConflictError,
)
from kvworker.model import BatchResult
from kvworker.ops.entry_lines import parse_line

# How the lines are grouped must not change between two imports of a file: a repeated batch must be the same one.
_BATCH_LINES = 200
_BATCH_BYTES = 262_144
_OPEN_BATCHES = 64
# Enough to keep several workers busy, and few enough that none reaches its deadline in the queue.
_MAX_IN_FLIGHT = 8
_ATTEMPTS = 3
# After these errors, another attempt with the same idempotency key can succeed.
_TRANSIENT = (OperationTimeoutError, OperationExpiredError, StoreUnavailableError)


@dataclass(frozen=True)
class LineError:
    """A line that was not imported, counted from 1, and the reason."""

    line: int
    error: str


@dataclass
class ImportReport:
    """The outcome of an import. A replayed line was applied by an earlier import of the same file.

    ``repeated`` names the lines that write the key of an earlier line. ``unanswered`` counts the lines that were sent
    and had no answer when the import was interrupted; to repeat the import settles them. ``present`` counts the entries
    that an import of absent ones left as they were.
    """

    applied: int = 0
    replayed: int = 0
    errors: list[LineError] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    unanswered: int = 0
    present: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        errors = [{"line": error.line, "error": error.error} for error in self.errors]
        return {
            "applied": self.applied,
            "replayed": self.replayed,
            "failed": len(errors),
            "unanswered": self.unanswered,
            "present": self.present,
            "repeated": self.repeated,
            "errors": errors,
        }


@dataclass
class _Batch:
    """Lines of one namespace that are sent together, in order."""

    namespace: str
    numbers: list[int] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    size_bytes: int = 0
    pending: QueuedResult | None = None

    @property
    def keys(self) -> set[str]:
        """The keys that the lines write."""
        return {operation["key"] for operation in self.operations}

    def is_full(self) -> bool:
        """Return whether the batch must be sent before another line can follow."""
        return len(self.numbers) >= _BATCH_LINES or self.size_bytes >= _BATCH_BYTES


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
        self._seen: set[int] = set()
        self._open: dict[str, _Batch] = {}
        self._in_flight: deque[_Batch] = deque()

    def run(self, lines: Iterable[bytes], on_line: Callable[[int], object]) -> ImportReport:
        """Import every line, or stop at the first error if the importer was told to.

        ``report`` is complete even if this ends by an error or an interrupt.

        Args:
            lines: The lines, each a JSON object. Blank lines are skipped.
            on_line: Called with the size of each line in bytes, once the line has been read.

        Raises:
            QueueUnavailableError: No broker answers, so the remaining lines would fail too.
        """
        try:
            for number, line in enumerate(lines, start=1):
                if self._must_stop():
                    break
                if line.strip():
                    self._take_line(number, line)
                on_line(len(line))
            # The batches that are still open keep the same lines when the import is repeated, so they are not sent now.
            while self._open and not self._must_stop():
                self._send(next(iter(self._open)))
            while self._in_flight:
                self._await_oldest()
        finally:
            self.report.unanswered = sum(len(batch.numbers) for batch in self._in_flight)
            self.report.errors.sort(key=lambda error: error.line)
        return self.report

    def _must_stop(self) -> bool:
        return self._stop_on_error and bool(self.report.errors)

    def _take_line(self, number: int, line: bytes) -> None:
        try:
            arguments = parse_line(line)
        except InvalidRequestError as error:
            self._fail(number, error)
            return
        if "quota_bytes" in arguments:
            self._set_quota(number, arguments)
            return
        self._note_key(number, arguments)
        namespace = arguments.pop("namespace")
        if namespace not in self._open and len(self._open) >= _OPEN_BATCHES:
            self._send(next(iter(self._open)))
        batch = self._open.setdefault(namespace, _Batch(namespace))
        batch.numbers.append(number)
        batch.operations.append({"tool": "kv_set", **arguments, **self._options})
        batch.size_bytes += len(line)
        if batch.is_full():
            self._send(namespace)

    def _note_key(self, number: int, arguments: dict[str, Any]) -> None:
        name = hash((arguments["namespace"], arguments["key"]))
        if name in self._seen:
            self.report.repeated.append(number)
        self._seen.add(name)

    def _send(self, namespace: str) -> None:
        batch = self._open.pop(namespace)
        # Lines for one key must be applied in order, and two workers would not keep the order of calls in flight.
        while len(self._in_flight) >= _MAX_IN_FLIGHT or self._conflicts(batch):
            self._await_oldest()
        try:
            batch.pending = self._submit(batch)
        except PolicyDeniedError as error:
            for number in batch.numbers:
                self._fail(number, error)
        else:
            self._in_flight.append(batch)

    def _conflicts(self, batch: _Batch) -> bool:
        others = (other for other in self._in_flight if other.namespace == batch.namespace)
        return any(not batch.keys.isdisjoint(other.keys) for other in others)

    def _await_oldest(self) -> None:
        batch = self._in_flight[0]
        try:
            result = self._outcome(lambda: self._submit(batch), batch.pending)
        except QueueUnavailableError:
            raise
        except KVStoreError as error:
            for number in batch.numbers:
                self._fail(number, error)
        else:
            self._count(batch, result)
        self._in_flight.popleft()

    def _count(self, batch: _Batch, result: BatchResult) -> None:
        for place, outcome in enumerate(result.results):
            if isinstance(outcome, VersionConflictError):
                self.report.present += 1
            elif isinstance(outcome, KVStoreError):
                self._set_alone(batch, place, outcome)
            else:
                self._count_line(replayed=result.replayed)

    def _set_alone(self, batch: _Batch, place: int, refusal: KVStoreError) -> None:
        """Write a line again, apart from the batch that refused it: the batch would repeat its refusal forever."""
        number, operation = batch.numbers[place], batch.operations[place]
        if any(later["key"] == operation["key"] for later in batch.operations[place + 1 :]):
            self._fail(number, refusal)
            return
        arguments = {**operation, "namespace": batch.namespace}
        self._call(number, arguments.pop("tool"), arguments)

    def _set_quota(self, number: int, arguments: dict[str, Any]) -> None:
        """Set a namespace's own quota before its entries are written."""
        self._call(number, "kv_set_quota", arguments)

    def _call(self, number: int, tool: str, arguments: dict[str, Any]) -> None:
        arguments = {**arguments, "idempotency_key": f"import-{self._import_id}-{number}"}
        try:
            result = self._outcome(lambda: self._store.submit(tool, arguments, timeout=self._timeout))
        except QueueUnavailableError:
            raise
        except KVStoreError as error:
            self._fail(number, error)
        else:
            self._count_line(replayed=result.replayed)

    def _outcome(self, submit: Callable[[], QueuedResult], pending: QueuedResult | None = None) -> Any:
        for _ in range(_ATTEMPTS - 1):
            try:
                return (pending or submit()).result()
            except _TRANSIENT:
                pending = None
        return (pending or submit()).result()

    def _submit(self, batch: _Batch) -> QueuedResult:
        arguments = {
            "namespace": batch.namespace,
            "operations": batch.operations,
            "atomic": False,
            "idempotency_key": f"import-{self._import_id}-{batch.numbers[0]}-{batch.numbers[-1]}",
        }
        return self._store.submit("kv_batch", arguments, timeout=self._timeout)

    def _count_line(self, *, replayed: bool) -> None:
        if replayed:
            self.report.replayed += 1
        else:
            self.report.applied += 1

    def _fail(self, line: int, error: KVStoreError) -> None:
        self.report.errors.append(LineError(line, str(error)))
