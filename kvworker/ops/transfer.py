"""Import and export as JSON lines: ``{"namespace": …, "key": …, "value": …, "ttl_seconds": …}``, one entry a line."""

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

# Enough to keep every worker busy, few enough that none waits until its deadline.
_WINDOW = 64
_ATTEMPTS = 3
_CHUNK_BYTES = 1 << 20
_FIELDS = ("namespace", "key", "value", "ttl_seconds")
# What another attempt with the same idempotency key settles.
_TRANSIENT = (OperationTimeoutError, OperationExpiredError, StoreUnavailableError)


@dataclass(frozen=True)
class LineError:
    """A line that was not imported; lines count from 1."""

    line: int
    error: str


@dataclass
class ImportReport:
    """What an import did. A replayed line had been applied by an earlier import of the same file."""

    applied: int = 0
    replayed: int = 0
    errors: list[LineError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        errors = [{"line": error.line, "error": error.error} for error in self.errors]
        return {"applied": self.applied, "replayed": self.replayed, "failed": len(errors), "errors": errors}


@dataclass
class _Sent:
    line: int
    arguments: dict[str, Any]
    pending: QueuedResult

    @property
    def name(self) -> tuple[str, str]:
        return self.arguments["namespace"], self.arguments["key"]


class Importer:
    """Sends the lines of a file as ``kv_set``, many at a time, each with an idempotency key of its own.

    ``import_id`` makes the keys: the same file with the same id again applies no line twice.
    """

    def __init__(self, store: KeyValueStore, import_id: str, *, timeout: float | None, stop_on_error: bool) -> None:
        self.report = ImportReport()
        self._store = store
        self._import_id = import_id
        self._timeout = timeout
        self._stop_on_error = stop_on_error
        self._sent: deque[_Sent] = deque()

    def run(self, lines: Iterable[bytes], on_line: Callable[[int], object]) -> ImportReport:
        """Import every line, or up to the first error; ``on_line`` hears the bytes of each line read.

        Raises:
            QueueUnavailableError: there is no broker, so that no further line would be imported either.
        """
        for number, line in enumerate(lines, start=1):
            if self._stop_on_error and self.report.errors:
                break
            if line.strip():
                self._send(number, line)
            on_line(len(line))
        while self._sent:
            self._settle()
        return self.report

    def _send(self, number: int, line: bytes) -> None:
        try:
            arguments = parse_line(line)
        except InvalidRequestError as error:
            self._fail(number, error)
            return
        arguments["idempotency_key"] = f"import-{self._import_id}-{number}"
        # Two lines for one key must be applied in their order, which two workers would not keep.
        name = (arguments["namespace"], arguments["key"])
        while len(self._sent) >= _WINDOW or any(sent.name == name for sent in self._sent):
            self._settle()
        try:
            self._sent.append(_Sent(number, arguments, self._submit(arguments)))
        except PolicyDeniedError as error:
            self._fail(number, error)

    def _settle(self) -> None:
        """Await the oldest line that is on its way."""
        sent = self._sent.popleft()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = sent.pending.result()
            except QueueUnavailableError:
                raise
            except KVStoreError as error:
                if attempt == _ATTEMPTS or not isinstance(error, _TRANSIENT):
                    self._fail(sent.line, error)
                    return
                sent.pending = self._submit(sent.arguments)
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
    """The arguments of ``kv_set`` that a line asks for.

    Raises:
        InvalidRequestError: it is not such a line.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"not JSON: {getattr(error, 'msg', None) or error}") from None
    if not isinstance(data, dict):
        raise InvalidRequestError(f"a line should be an object, not a {type(data).__name__}")
    if unknown := [name for name in data if name not in _FIELDS]:
        raise InvalidRequestError(f"unknown field {unknown[0]!r}; a line has {', '.join(_FIELDS)}")
    return check_arguments(find_tool("kv_set"), data)


def format_line(entry: GetResult) -> str:
    """An entry as a line."""
    data = {"namespace": entry.namespace, "key": entry.key, "value": entry.value}
    if entry.ttl_seconds is not None:
        data["ttl_seconds"] = entry.ttl_seconds
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def content_id(file: IO[bytes]) -> str:
    """What identifies a file's content; the file is read from where it stands, and put back there."""
    start = file.tell()
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(start)
    return digest.hexdigest()[:32]
