"""Checks that a store's tables agree with each other, without changing anything.

One snapshot is read from beginning to end. All tables are keyed by namespace first, so three streams in this order are
enough: ledgers, entries and operation records, each read page by page. No more than a page of each is held in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.record_forms import record_fault, small_record_fault
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.statements import StatementName
from kvworker.adapters.sql.write import whole_result
from kvworker.errors import InvalidKeyError
from kvworker.model import StoreProblem, VerifyReport, check_key, check_namespace, is_canonical, shown_name

#: Called with the number of entries that were checked so far.
OnProgress: TypeAlias = Callable[[int], None]

#: A page has at most 1000 rows, and about as many bytes of values.
_PAGE_BYTES: Final = 4 * 1024 * 1024
_PROGRESS_ENTRIES: Final = 1000
#: A damaged store may have as many problems as rows. The others are only counted.
_MAX_PROBLEMS: Final = 1000


class _LedgerRow(NamedTuple):
    namespace: str
    used_bytes: int | None
    entry_count: int | None
    record_count: int | None
    first_rows: int
    excess_bytes: int | None
    excess_entries: int | None
    excess_records: int | None
    limit_bytes: int | None
    entry_limit: int | None
    record_limit: int | None

    @property
    def excesses(self) -> tuple[int | None, ...]:
        """The amounts that the first row lent beyond the limits of the other rows. Each must be zero."""
        return self.excess_bytes, self.excess_entries, self.excess_records


class _EntryRow(NamedTuple):
    namespace: str
    key: str
    value: str | bytes
    octets: int
    size_bytes: int
    reserve: int


class _RecordRow(NamedTuple):
    namespace: str
    #: The digest of it in its place, as bytes, in a record since schema 0005.
    operation_id: str | bytes
    fingerprint: str
    result: str | None
    stamp: int
    expires_at: float


@dataclass(slots=True)
class _Sums:
    """The sums over entries and records. ``record_count`` includes the records that entries hold in reserve."""

    used_bytes: int = 0
    entry_count: int = 0
    record_count: int = 0

    def add(self, used_bytes: int, entry_count: int, record_count: int) -> None:
        """Add an entry, a record, or a whole namespace."""
        self.used_bytes += used_bytes
        self.entry_count += entry_count
        self.record_count += record_count


@dataclass
class Verification:
    """One run over a snapshot of the store."""

    dialect: Dialect
    connection: Any
    on_progress: OnProgress
    _now: float = 0.0
    _problem_count: int = 0
    _problems: list[StoreProblem] = field(default_factory=list)
    _checked_entries: int = 0
    _checked_records: int = 0

    def run(self) -> VerifyReport:
        """Check every row of one snapshot. The schema must be right."""
        with self.dialect.snapshot(self.connection):
            namespaces = self._check_rows()
        return VerifyReport(
            namespaces, self._checked_entries, self._checked_records, self._problem_count, tuple(self._problems)
        )

    def _check_rows(self) -> int:
        self._now = self.dialect.fetch_one(self.connection, "database_clock", {})[0]
        store, ledger_count = _Sums(), 0
        rows = heapq.merge(
            self._pages("verify_ledgers", _LedgerRow),
            self._pages("verify_entries", _EntryRow),
            self._pages("verify_records", _RecordRow),
            self._pages("verify_previous_records", _RecordRow),
            key=itemgetter(0),
        )
        for namespace, group in groupby(rows, key=itemgetter(0)):
            ledger, sums = self._check_namespace(namespace, group)
            store.add(sums.used_bytes, sums.entry_count, sums.record_count)
            ledger_count += ledger.first_rows > 0
        self._check_totals(store, ledger_count)
        return ledger_count

    def _pages(self, statement: StatementName, row_type: Callable[..., Any]) -> Iterator[Any]:
        """Read rows page by page, until a page is empty: one may be short because its values are large."""
        name = {"after_namespace": "", "after_key": ""}
        while page := self.dialect.run(self.connection, statement, {**name, "max_bytes": _PAGE_BYTES}).fetchall():
            yield from (row_type(*row) for row in page)
            name = {"after_namespace": page[-1][0], "after_key": page[-1][1]}

    def _check_namespace(self, namespace: str, rows: Iterator[Any]) -> tuple[_LedgerRow, _Sums]:
        ledger, sums = _LedgerRow(namespace, *(None,) * 3, 0, *(None,) * 6), _Sums()
        self._check_name(namespace)
        for row in rows:
            if isinstance(row, _EntryRow):
                self._check_entry(row)
                sums.add(row.size_bytes, 1, row.reserve)
            elif isinstance(row, _RecordRow):
                self._check_record(row)
                sums.add(0, 0, 1)
            else:
                ledger = row
        self._check_ledger(ledger, sums)
        return ledger, sums

    def _check_name(self, namespace: str) -> None:
        try:
            check_namespace(namespace)
        except InvalidKeyError as error:
            self._report("entry", namespace, str(error))

    def _check_entry(self, row: _EntryRow) -> None:
        self._checked_entries += 1
        if self._checked_entries % _PROGRESS_ENTRIES == 0:
            self.on_progress(self._checked_entries)
        for fault in _entry_faults(row):
            self._report("entry", row.namespace, f"key {shown_name(row.key)}: {fault}")

    def _check_record(self, row: _RecordRow) -> None:
        self._checked_records += 1
        is_digest = isinstance(row.operation_id, bytes)
        # Damaged text of SQLite arrives as bytes.
        result = whole_result(row.result, row.stamp) if is_digest and not isinstance(row.result, bytes) else row.result
        fault = record_fault(row.fingerprint, result, row.expires_at - self._now)
        if isinstance(row.operation_id, bytes):
            fault = fault or small_record_fault(row.operation_id, row.stamp, row.expires_at)
        if fault:
            self._report("record", row.namespace, f"{_record_name(row.operation_id)}: {fault}")

    def _check_ledger(self, ledger: _LedgerRow, sums: _Sums) -> None:
        recorded = _Sums(ledger.used_bytes or 0, ledger.entry_count or 0, ledger.record_count or 0)
        namespace = ledger.namespace
        if recorded != sums:
            self._report("ledger", namespace, _difference(recorded, sums))
        elif ledger.used_bytes is None:
            self._report("ledger", namespace, "it has no ledger")
        self._check_shares(ledger, namespace)
        self._check_limits(ledger, namespace, sums)

    def _check_shares(self, ledger: _LedgerRow, namespace: str | None) -> None:
        if ledger.used_bytes is not None and not ledger.first_rows:
            self._report("shares", namespace, "its ledger has shares, and no first row that lent them")
        elif any(ledger.excesses):
            sizes = ", ".join(
                f"{excess:+} {what}"
                for what, excess in zip(("bytes", "entries", "records"), ledger.excesses, strict=True)
                if excess
            )
            self._report("shares", namespace, f"its ledger lent other than the limits of its shares: {sizes}")

    def _check_limits(self, ledger: _LedgerRow, namespace: str | None, sums: _Sums) -> None:
        for what, used, limit in (
            ("bytes", sums.used_bytes, ledger.limit_bytes),
            ("entries", sums.entry_count, ledger.entry_limit),
            ("operation records", sums.record_count, ledger.record_limit),
        ):
            if limit is not None and used > limit:
                self._report(
                    "quota", namespace, f"it has {used:,} {what}, and its limit was {limit:,} at the last write"
                )

    def _check_totals(self, store: _Sums, ledger_count: int) -> None:
        ledger = _LedgerRow(*self.dialect.fetch_one(self.connection, "verify_global_ledger", {}))
        if ledger.used_bytes is not None:
            # The global ledger counts no operation records.
            recorded = _Sums(ledger.used_bytes, ledger.entry_count or 0, store.record_count)
            if recorded != store:
                self._report("ledger", None, _difference(recorded, store))
            self._check_shares(ledger, None)
            self._check_limits(ledger, None, store)
        counted = self.dialect.fetch_one(self.connection, "count_namespaces", {})
        if counted is None or counted[0] != ledger_count:
            shown = "no count" if counted is None else f"{counted[0]:,}"
            self._report("totals", None, f"kv_totals counts {shown}, and there are {ledger_count:,} namespaces")

    def _report(self, check: str, namespace: str | None, detail: str) -> None:
        self._problem_count += 1
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(StoreProblem(check, None if namespace == GLOBAL_LEDGER else namespace, detail))


def _record_name(operation_id: str | bytes) -> str:
    if isinstance(operation_id, bytes):
        return f"record {operation_id.hex()}"
    return f"operation id {shown_name(operation_id)}"


def _entry_faults(row: _EntryRow) -> Iterator[str]:
    try:
        check_key(row.key)
    except InvalidKeyError as error:
        yield str(error)
    if row.size_bytes != row.octets:
        yield f"its size is recorded as {row.size_bytes:,} bytes, and its value has {row.octets:,}"
    if not _is_canonical(row.value):
        yield "its value is not canonical JSON"
    if row.reserve < 1:
        yield f"it holds {row.reserve} operation records in reserve, and needs one for its deletion"


def _is_canonical(value: str | bytes) -> bool:
    try:
        return is_canonical(value if isinstance(value, str) else value.decode())
    except UnicodeDecodeError:
        return False


_COUNTED: Final[Mapping[str, str]] = {
    "used_bytes": "bytes",
    "entry_count": "entries",
    "record_count": "operation records",
}


def _difference(recorded: _Sums, actual: _Sums) -> str:
    differences = [
        f"{getattr(recorded, name):,} {what} for {getattr(actual, name):,}"
        for name, what in _COUNTED.items()
        if getattr(recorded, name) != getattr(actual, name)
    ]
    return f"its ledger counts {', '.join(differences)}"
