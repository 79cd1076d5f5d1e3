"""What the operations give: frozen dataclasses in Python, dicts on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeAlias

from kvworker.errors import KVStoreError, OperationFailedError, rebuild_error
from kvworker.model.validation import JSONValue


class Result:
    """The base of all results. What is absent (None) is left out of the dict where a class says so."""

    __slots__ = ()

    _left_out_when_none: ClassVar[frozenset[str]] = frozenset({"ttl_seconds", "version"})

    def to_dict(self) -> dict[str, Any]:
        """The dict that crosses the queue."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in pairs if not (value is None and name in self._left_out_when_none)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result from its dict; what a newer worker says beyond this class is passed over.

        Raises:
            TypeError: it is not such a dict.
        """
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class GetResult(Result):
    """What ``get`` found. ``ttl_seconds`` is what remains; None means that the entry does not expire.

    ``version`` is what a later write may expect (compare-and-set): see ``SetResult``.
    """

    namespace: str
    key: str
    found: bool
    value: JSONValue = None
    ttl_seconds: float | None = None
    version: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The dict that crosses the queue: no value when there is none."""
        data = Result.to_dict(self)
        if not self.found:
            del data["value"]
        return data


@dataclass(frozen=True, slots=True)
class SetResult(Result):
    """What ``set`` stored. ``replayed`` tells that the operation id had already been applied.

    ``version`` is the entry's from this write on. Every later write of a value gives a larger one, also
    after the entry was deleted or expired and made again, so no version ever comes back.
    """

    namespace: str
    key: str
    value: JSONValue
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class IncrementResult(Result):
    """The counter after ``increment``."""

    namespace: str
    key: str
    value: int
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteResult(Result):
    """Whether ``delete`` removed a live entry."""

    namespace: str
    key: str
    deleted: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class TouchResult(Result):
    """What ``touch`` or ``persist`` did to an entry's expiry; the value and the version stay as they are."""

    namespace: str
    key: str
    found: bool
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ListedEntry(Result):
    """One entry of a listing; its ``value`` is there if the listing was asked for values."""

    key: str
    version: int
    size_bytes: int
    ttl_seconds: float | None = None
    value: JSONValue = None


@dataclass(frozen=True, slots=True)
class KeyList(Result):
    """A page of a namespace's live entries in order of their keys; ``next_cursor`` None ends the listing."""

    namespace: str
    entries: tuple[ListedEntry, ...]
    next_cursor: str | None = None
    with_values: bool = field(default=False, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The dict that crosses the queue: entries as dicts, with values if they were asked for."""
        entries = [entry.to_dict() for entry in self.entries]
        if not self.with_values:
            for entry in entries:
                del entry["value"]
        return {"namespace": self.namespace, "entries": entries, "next_cursor": self.next_cursor}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The page from its dict."""
        entries = tuple(ListedEntry.from_dict(entry) for entry in data["entries"])
        with_values = any("value" in entry for entry in data["entries"])
        return cls(data["namespace"], entries, data.get("next_cursor"), with_values)


@dataclass(frozen=True, slots=True)
class LedgerUsage(Result):
    """A ledger against its quota; ``namespace`` None is the whole store, ``quota_bytes`` None is no quota."""

    namespace: str | None
    used_bytes: int
    entry_count: int
    quota_bytes: int | None


@dataclass(frozen=True, slots=True)
class NamespaceList(Result):
    """A page of the namespaces that have entries, in order, each with its usage; ``next_cursor`` None is the end."""

    namespaces: tuple[LedgerUsage, ...]
    next_cursor: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The dict that crosses the queue."""
        return {"namespaces": [usage.to_dict() for usage in self.namespaces], "next_cursor": self.next_cursor}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The page from its dict."""
        return cls(tuple(LedgerUsage.from_dict(usage) for usage in data["namespaces"]), data.get("next_cursor"))


@dataclass(frozen=True, slots=True)
class ClearResult(Result):
    """What ``clear`` removed: the live entries, and the bytes given back (expired entries' included)."""

    namespace: str
    deleted_entries: int
    freed_bytes: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class QuotaResult(Result):
    """A namespace's quota from now on; None means that the configured one holds again."""

    namespace: str
    quota_bytes: int | None
    replayed: bool = False


StepResult: TypeAlias = GetResult | SetResult | IncrementResult | DeleteResult | TouchResult

#: The results of the tools that may be a step of a batch.
STEP_RESULTS: Mapping[str, type[StepResult]] = {
    "kv_get": GetResult,
    "kv_set": SetResult,
    "kv_delete": DeleteResult,
    "kv_increment": IncrementResult,
    "kv_touch": TouchResult,
    "kv_persist": TouchResult,
}


@dataclass(frozen=True, slots=True)
class BatchResult(Result):
    """What each step of a batch gave, in their order: its result or, if it was refused on its own, its error.

    Only a batch that is not atomic holds errors: an atomic one raises ``BatchRefusedError`` instead.
    """

    namespace: str
    results: tuple[StepResult | KVStoreError, ...]
    replayed: bool = False
    #: The steps' tools, which tell how each result is read.
    tools: tuple[str, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The dict that crosses the queue: a step's result with its ``tool``, or its ``error``."""
        steps = [
            {"tool": tool, **result.to_dict()} if isinstance(result, Result) else _error_to_dict(tool, result)
            for tool, result in zip(self.tools, self.results, strict=True)
        ]
        return {"namespace": self.namespace, "results": steps, "replayed": self.replayed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The batch's result from its dict."""
        steps = data["results"]
        tools = tuple(step["tool"] for step in steps)
        results = tuple(
            _error_from_dict(step["error"]) if "error" in step else STEP_RESULTS[step["tool"]].from_dict(step)
            for step in steps
        )
        return cls(data["namespace"], results, data["replayed"], tools)


OperationResult: TypeAlias = (
    StepResult | KeyList | NamespaceList | LedgerUsage | ClearResult | QuotaResult | BatchResult
)


def _error_to_dict(tool: str, error: KVStoreError) -> dict[str, Any]:
    # The message is for whoever reads JSON, such as a language model; Python rebuilds the error from its args.
    return {"tool": tool, "error": {"type": type(error).__name__, "args": list(error.args), "message": str(error)}}


def _error_from_dict(data: Mapping[str, Any]) -> KVStoreError:
    error = rebuild_error(data["type"], data["args"])
    return error or OperationFailedError("", f"{data['type']}: {data['message']}")
