"""Imports and exports entries as JSON lines: ``{"namespace": …, "key": …, "value": …, "ttl_seconds": …}`` each."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from kvworker.client.sync import KeyValueStore, QueuedResult
from kvworker.errors import (
    InvalidRequestError,
    KVStoreError,
    OperationExpiredError,
    OperationTimeoutError,
    PolicyDeniedError,
    QueueUnavailableError,
    StoreUnavailableError,
)
from kvworker.model import GetResult, SetResult
from kvworker.tools import check_arguments, find_tool

# Enough calls in flight to keep every worker busy, and few enough that none reaches its deadline in the queue.
_MAX_IN_FLIGHT = 64
_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 20
_FIELDS = ("namespace", "key", "value", "ttl_seconds")
# After these errors, another attempt with the same idempotency key can succeed.
_TRANSIENT = (OperationTimeoutError, OperationExpiredError, StoreUnavailableError)


@dataclass(frozen=True)
class LineError:
    """A line that was not imported, counted from 1, and the reason."""

    line: int
    error: str


@dataclass
class ImportReport:
    """The outcome of an import. A replayed line was applied by an earlier import of the same file."""

    applied: int = 0
    replayed: int = 0
    errors: list[LineError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        errors = [{"line": error.line, "error": error.error} for error in self.errors]
        return {"applied": self.applied, "replayed": self.replayed, "failed": len(errors), "errors": errors}


@dataclass
class _LineInFlight:
    line: int
    arguments: dict[str, Any]
    pending: QueuedResult

    @property
    def entry(self) -> tuple[str, str]:
        """The namespace and key that the line writes."""
        return self.arguments["namespace"], self.arguments["key"]


class Importer:
    """Sends the lines of a file as ``kv_set`` calls, many at a time, each with its own idempotency key.

    Args:
        store: The facade to send them through.
        import_id: The prefix of the idempotency keys. Importing the same file again with the same id applies no line
            twice.
        timeout: The bound on each call, in seconds; None takes the facade's.
        stop_on_error: Stop at the first line that fails.
    """

    def __init__(self, store: KeyValueStore, import_id: str, *, timeout: float | None, stop_on_error: bool) -> None:
        self.report = ImportReport()
        self._store = store
        self._import_id = import_id
        self._timeout = timeout
        self._stop_on_error = stop_on_error
        self._in_flight: deque[_LineInFlight] = deque()

    def run(self, lines: Iterable[bytes], on_line: Callable[[int], object]) -> ImportReport:
        """Import every line, or stop at the first error if the importer was told to.

        Args:
            lines: The lines, each a JSON object. Blank lines are skipped.
            on_line: Called with the size of each line in bytes, once the line has been read and sent.

        Raises:
            QueueUnavailableError: No broker answers, so the remaining lines would fail too.
        """
        for number, line in enumerate(lines, start=1):
            if self._stop_on_error and self.report.errors:
                break
            if line.strip():
                self._send(number, line)
            on_line(len(line))
        while self._in_flight:
            self._await_oldest()
        return self.report

    def _send(self, number: int, line: bytes) -> None:
        try:
            arguments = parse_line(line)
        except InvalidRequestError as error:
            self._fail(number, error)
            return
        arguments["idempotency_key"] = f"import-{self._import_id}-{number}"
        # Lines for one key must be applied in order, and two workers would not keep the order of calls in flight.
        entry = (arguments["namespace"], arguments["key"])
        while len(self._in_flight) >= _MAX_IN_FLIGHT or any(line.entry == entry for line in self._in_flight):
            self._await_oldest()
        try:
            self._in_flight.append(_LineInFlight(number, arguments, self._submit(arguments)))
        except PolicyDeniedError as error:
            self._fail(number, error)

    def _await_oldest(self) -> None:
        oldest = self._in_flight.popleft()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = oldest.pending.result()
            except QueueUnavailableError:
                raise
            except KVStoreError as error:
                if attempt == _ATTEMPTS or not isinstance(error, _TRANSIENT):
                    self._fail(oldest.line, error)
                    return
                oldest.pending = self._submit(oldest.arguments)
            else:
                self._count(result)
                return

    def _submit(self, arguments: dict[str, Any]) -> QueuedResult:
        return self._store.submit("kv_set", arguments, timeout=self._timeout)

    def _count(self, result: object) -> None:
        if isinstance(result, SetResult) and result.replayed:
            self.report.replayed += 1
        else:
            self.report.applied += 1

    def _fail(self, line: int, error: KVStoreError) -> None:
        self.report.errors.append(LineError(line, str(error)))


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse a line into the arguments of ``kv_set``.

    Raises:
        InvalidRequestError: The line is not a JSON object with these fields.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"not JSON: {getattr(error, 'msg', None) or error}") from None
    if not isinstance(data, dict):
        raise InvalidRequestError(f"a line must be an object, not a {type(data).__name__}")
    if unknown := [name for name in data if name not in _FIELDS]:
        raise InvalidRequestError(f"unknown field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    return check_arguments(find_tool("kv_set"), data)


def format_line(entry: GetResult) -> str:
    """Format an entry as a line, with its newline."""
    data = {"namespace": entry.namespace, "key": entry.key, "value": entry.value}
    if entry.ttl_seconds is not None:
        data["ttl_seconds"] = entry.ttl_seconds
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def content_id(file: IO[bytes]) -> str:
    """Compute an id of a file's content from its current position on, and restore that position."""
    start = file.tell()
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(start)
    return digest.hexdigest()[:32]
