"""Lists keys and namespaces page by page, and ledgers with their quotas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.maintenance import count_namespaces
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.write import Limits
from kvworker.model import (
    MAX_KEY_BYTES,
    MAX_NAMESPACE_BYTES,
    MAX_PAGE_ROWS,
    MAX_READ_BYTES,
    KeyList,
    LedgerUsage,
    ListedEntry,
    NamespaceList,
    check_count,
    check_cursor,
    check_prefix,
    decode_value,
)

_LAST_CODE_POINT: Final = 0x10FFFF
#: Greater than every name: one character more than the longest name of the greatest characters.
_ABOVE_ALL_NAMES: Final = chr(_LAST_CODE_POINT) * (MAX_KEY_BYTES // 4 + 1)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing: at most ``rows`` names that begin with ``prefix`` and follow ``after``."""

    prefix: str
    rows: int
    after: str

    def params(self) -> dict[str, Any]:
        """Return the parameters of its statement, which reads one more row to learn whether another page follows."""
        return {
            "prefix": self.prefix,
            "below": _upper_bound(self.prefix),
            "after": self.after,
            "page_rows": self.rows + 1,
        }


def key_page(prefix: str, limit: int, cursor: str | None) -> Page:
    """Make a page of keys.

    Raises:
        InvalidKeyError: the prefix is not part of a key.
        InvalidRequestError: the limit or the cursor is invalid.
    """
    return _page(check_prefix("prefix", prefix, MAX_KEY_BYTES), limit, cursor)


def namespace_page(prefix: str, limit: int, cursor: str | None) -> Page:
    """Make a page of namespaces.

    Raises:
        InvalidKeyError: the prefix is not part of a namespace.
        InvalidRequestError: the limit or the cursor is invalid.
    """
    return _page(check_prefix("prefix", prefix, MAX_NAMESPACE_BYTES), limit, cursor)


def list_keys(executor: Executor, namespace: str, page: Page, *, include_values: bool) -> KeyList:
    """Read a page of a namespace's live entries. With values it ends before they exceed ``MAX_READ_BYTES`` together."""
    params = {
        **page.params(),
        "namespace": namespace,
        "include_values": include_values,
        "max_bytes": MAX_READ_BYTES,
    }
    rows = executor.run(lambda connection: executor.dialect.run(connection, "list_keys", params).fetchall())
    fitting = [row for row in rows[: page.rows] if row[-1] or not include_values]
    entries = tuple(_listed(row, include_values=include_values) for row in fitting)
    next_cursor = entries[-1].key if len(entries) < len(rows) else None
    return KeyList(namespace, entries, next_cursor, include_values)


def list_namespaces(executor: Executor, page: Page, limits: Limits) -> NamespaceList:
    """Read a page of the namespaces that have live entries."""
    rows = executor.run(
        lambda connection: executor.dialect.run(connection, "list_namespaces", page.params()).fetchall()
    )
    found = tuple(ledger_of(row, limits) for row in rows[: page.rows])
    return NamespaceList(found, found[-1].namespace if len(rows) > len(found) else None)


def namespace_usage(executor: Executor, namespace: str, limits: Limits) -> LedgerUsage:
    """Read a namespace's ledger. A namespace without a ledger uses nothing."""
    row = executor.run(lambda connection: _read_ledger(executor, connection, namespace))
    return ledger_of((namespace, *(row or (0, 0, 0, None, 1))), limits)


def all_usage(executor: Executor, limits: Limits) -> list[LedgerUsage]:
    """Read every ledger in order, and last the global one if there is a global quota."""
    rows = executor.run(lambda connection: executor.dialect.run(connection, "all_usage", {}).fetchall())
    usage = [ledger_of(row, limits) for row in rows if row[0] != GLOBAL_LEDGER]
    if limits.global_bytes is None:
        return usage
    return [*usage, total_usage(executor, limits)]


def own_quotas(executor: Executor, namespace: str | None) -> dict[str, int]:
    """Return the own quota of each namespace that has one, or only of one namespace."""
    rows = executor.run(lambda connection: executor.dialect.run(connection, "all_usage", {}).fetchall())
    return {row[0]: row[4] for row in rows if row[4] is not None and namespace in {None, row[0]}}


def is_known(executor: Executor, namespace: str) -> bool:
    """Return whether a namespace has entries or its own quota, or had an entry that a recorded operation changed."""
    usage = executor.run(lambda connection: _read_ledger(executor, connection, namespace))
    if usage is None:
        return False
    _, entry_count, _, own_quota, _ = usage
    params = {"namespace": namespace}
    changed = executor.run(lambda connection: executor.dialect.fetch_one(connection, "has_changed", params))
    return entry_count > 0 or own_quota is not None or bool(changed[0])


def total_usage(executor: Executor, limits: Limits) -> LedgerUsage:
    """Read the usage of the whole store, from all ledgers."""
    row = executor.run(lambda connection: executor.dialect.fetch_one(connection, "sum_ledgers", {}))
    used_bytes, entry_count, record_count = row
    return LedgerUsage(
        None,
        used_bytes,
        entry_count,
        limits.global_bytes,
        record_count=record_count,
        namespace_count=count_namespaces(executor),
        namespace_limit=limits.namespaces,
    )


def _page(prefix: str, limit: int, cursor: str | None) -> Page:
    return Page(prefix, check_count("limit", limit, MAX_PAGE_ROWS), check_cursor(cursor) or "")


def _read_ledger(executor: Executor, connection: Any, namespace: str) -> Any:
    return executor.dialect.fetch_one(connection, "ledger_usage", {"namespace": namespace})


def ledger_of(row: Any, limits: Limits) -> LedgerUsage:
    """Make the usage of a namespace from its ledger's row, with the limits that apply to it."""
    namespace, used_bytes, entry_count, record_count, own_quota, factor = row
    return LedgerUsage(
        namespace,
        used_bytes,
        entry_count,
        limits.namespace_bytes if own_quota is None else own_quota,
        entry_limit=limits.entries * factor,
        record_count=record_count,
        record_limit=limits.records * factor,
    )


def _listed(row: Any, *, include_values: bool) -> ListedEntry:
    key, version, size_bytes, ttl_seconds, text, _ = row
    remaining = None if ttl_seconds is None else max(0.0, ttl_seconds)
    return ListedEntry(key, version, size_bytes, remaining, decode_value(text) if include_values else None)


def _upper_bound(prefix: str) -> str:
    """Return the first name above all that begin with the prefix, by code points, an order that UTF-8 keeps."""
    for end in range(len(prefix), 0, -1):
        code_point = ord(prefix[end - 1])
        if code_point < _LAST_CODE_POINT:
            # Surrogates are not characters.
            following = 0xE000 if code_point == 0xD7FF else code_point + 1
            return prefix[: end - 1] + chr(following)
    return _ABOVE_ALL_NAMES
