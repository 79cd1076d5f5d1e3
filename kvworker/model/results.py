"""Results of operations: frozen dataclasses in Python, dicts on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from kvworker.model.values import DecodedValue, JSONValue


class Result:
    """The base of all results. Fields named in ``_left_out_when_none`` are left out of the dict while None."""

    __slots__ = ()

    _left_out_when_none: ClassVar[frozenset[str]] = frozenset({"ttl_seconds", "version"})

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in pairs if not (value is None and name in self._left_out_when_none)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the result from its dict. Ignore fields that only a newer worker knows.

        Raises:
            TypeError: A required field is missing.
        """
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ComputedResult(Result):
    """The base of the results of computed steps."""

    namespace: str
    key: str


@dataclass(frozen=True, slots=True)
class GetResult(Result):
    """The result of ``get``. A missing or expired entry has ``found`` False.

    ``ttl_seconds`` is the remaining time; None means that the entry does not expire. Pass ``version`` as the
    ``expected_version`` of a later write for compare-and-set: see ``SetResult``. It is None if ``found`` is False.
    """

    namespace: str
    key: str
    found: bool
    value: DecodedValue = None
    ttl_seconds: float | None = None
    version: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue, without a value if the entry was not found."""
        data = Result.to_dict(self)
        if not self.found:
            del data["value"]
        return data


@dataclass(frozen=True, slots=True)
class SetResult(Result):
    """The result of ``set``. ``replayed`` is True if the operation id had already been applied.

    ``version`` is the entry's version after this write. Every later write of a value gives a larger one, even
    after the entry was deleted or expired, so a version is never reused. It is None only if ``replayed`` is True and
    the operation was recorded before entries had versions.
    """

    namespace: str
    key: str
    value: JSONValue
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class IncrementResult(Result):
    """The result of ``increment``: the counter's new value."""

    namespace: str
    key: str
    value: int
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteResult(Result):
    """The result of ``delete``. ``deleted`` is True if a live entry was removed."""

    namespace: str
    key: str
    deleted: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class TouchResult(Result):
    """The result of ``touch`` or ``persist``, which change an entry's expiry but not its value or version."""

    namespace: str
    key: str
    found: bool
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ListedEntry(Result):
    """One entry of a listing. ``value`` is set only if the call asked for values."""

    key: str
    version: int
    size_bytes: int
    ttl_seconds: float | None = None
    value: DecodedValue = None


@dataclass(frozen=True, slots=True)
class KeyList(Result):
    """A page of a namespace's live entries, sorted by key. ``next_cursor`` is None on the last page."""

    namespace: str
    entries: tuple[ListedEntry, ...]
    next_cursor: str | None = None
    with_values: bool = field(default=False, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue, with the entries as dicts."""
        entries = [entry.to_dict() for entry in self.entries]
        if not self.with_values:
            for entry in entries:
                del entry["value"]
        return {"namespace": self.namespace, "entries": entries, "next_cursor": self.next_cursor}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the page from its dict."""
        entries = tuple(ListedEntry.from_dict(entry) for entry in data["entries"])
        with_values = any("value" in entry for entry in data["entries"])
        return cls(data["namespace"], entries, data.get("next_cursor"), with_values)


@dataclass(frozen=True, slots=True)
class LedgerUsage(Result):
    """A ledger and its quota.

    ``namespace`` None is the whole store. ``quota_bytes`` None means that there is no quota. ``record_count`` is the
    number of operation records, with up to 62 that each entry holds in reserve for its next writes. A namespace's
    numbers have an ``entry_limit`` and a ``record_limit``. The whole store has a ``namespace_count`` with its limit.
    Two results are equal whatever these are: an adapter need not count them.
    """

    _left_out_when_none = frozenset({"entry_limit", "record_limit", "namespace_count", "namespace_limit"})

    namespace: str | None
    used_bytes: int
    entry_count: int
    quota_bytes: int | None
    entry_limit: int | None = field(default=None, compare=False)
    record_count: int = field(default=0, compare=False)
    record_limit: int | None = field(default=None, compare=False)
    namespace_count: int | None = field(default=None, compare=False)
    namespace_limit: int | None = field(default=None, compare=False)

    @property
    def fullness(self) -> float:
        """The largest share of a limit that is used: of the bytes, the entries or the operation records."""
        return max(self._shares().values(), default=0.0)

    @property
    def fullest_limit(self) -> str:
        """The limit of which that share is used: ``bytes``, ``entries`` or ``records``. Empty if nothing is."""
        shares = self._shares()
        fullest = max(shares, key=lambda name: shares[name], default="")
        return fullest if self.fullness else ""

    def _shares(self) -> dict[str, float]:
        """Return the used share of each limit that there is."""
        limits = {
            "bytes": (self.used_bytes, self.quota_bytes),
            "entries": (self.entry_count, self.entry_limit),
            "records": (self.record_count, self.record_limit),
        }
        return {name: used / limit for name, (used, limit) in limits.items() if limit}


@dataclass(frozen=True, slots=True)
class NamespaceList(Result):
    """A page of the namespaces that have entries, sorted by name, each with its usage.

    ``next_cursor`` is None on the last page.
    """

    namespaces: tuple[LedgerUsage, ...]
    next_cursor: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue."""
        return {"namespaces": [usage.to_dict() for usage in self.namespaces], "next_cursor": self.next_cursor}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the page from its dict."""
        return cls(tuple(LedgerUsage.from_dict(usage) for usage in data["namespaces"]), data.get("next_cursor"))


@dataclass(frozen=True, slots=True)
class ClearResult(Result):
    """The result of ``clear``: the live entries removed, and the bytes freed, including those of expired entries."""

    namespace: str
    deleted_entries: int
    freed_bytes: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class QuotaResult(Result):
    """The result of ``set_quota``. ``quota_bytes`` None means that the configured quota applies again."""

    namespace: str
    quota_bytes: int | None
    replayed: bool = False
