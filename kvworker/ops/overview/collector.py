"""Collects the state of the whole: queues, workers and stores. Each has its own time limit, whatever the others do."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import ConfigurationError, KVStoreError
from kvworker.model import DatabaseConnections, ExpiryReport, LedgerUsage, TableSize, UsagePage, UsageQuery
from kvworker.ops.database import open_adapter
from kvworker.ops.fleet import Fleet, ask_workers
from kvworker.ops.overview.activity import Activity, ActivityMeter, activity_since_start
from kvworker.ops.overview.locks import lock_lines
from kvworker.ops.overview.parts import Part, PartRunner, Source
from kvworker.ops.overview.queues import BrokerState, read_queues
from kvworker.settings import Settings, redacted_url

#: The longest time of a collection: the workers' answers take up to two seconds if one is silent.
COLLECT_SECONDS: Final = 5.0
#: The time that closing waits for sources that still run.
_CLOSE_SECONDS: Final = 2.0
_UNKNOWN: Final = Part[Any]()


@dataclass(frozen=True)
class StoreParts:
    """The known facts about one adapter's store."""

    total: Part[LedgerUsage] = _UNKNOWN
    fullest: Part[UsagePage] = _UNKNOWN
    expiry: Part[ExpiryReport] = _UNKNOWN
    connections: Part[DatabaseConnections] = _UNKNOWN
    tables: Part[tuple[TableSize, ...]] = _UNKNOWN


@dataclass(frozen=True)
class WorkersState:
    """The answers of the workers.

    Attributes:
        fleet: The workers that answered.
        recent: Their activity since the overview before; None in the first one.
    """

    fleet: Fleet
    recent: Activity | None = None

    @cached_property
    def since_start(self) -> Activity:
        """Their activity since they started."""
        return activity_since_start(self.fleet)

    def to_dict(self) -> dict[str, Any]:
        """Return the answers as JSON-able data, with what they did as a summary."""
        fleet = asdict(self.fleet)
        answers = [{name: value for name, value in each.items() if name != "state"} for each in fleet["answers"]]
        recent = None if self.recent is None else self.recent.to_dict()
        return {**fleet, "answers": answers, "recent": recent, "since_start": self.since_start.to_dict()}


@dataclass(frozen=True)
class Overview:
    """The state of the whole deployment at one moment.

    Attributes:
        taken_at: When it was collected, in seconds since the epoch by this machine's clock.
        queues: The queues.
        workers: The workers; unknown if ``queue.remote_control`` is off.
        stores: The store of each adapter in use, by the adapter's name. The default one is first.
    """

    taken_at: float
    queues: Part[BrokerState] = _UNKNOWN
    workers: Part[WorkersState] = _UNKNOWN
    stores: Mapping[str, StoreParts] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the overview as JSON-able data. A part that failed or is unknown is null."""
        stores = {
            name: {part: _data(getattr(store, part)) for part in STORE_PARTS} for name, store in self.stores.items()
        }
        return {
            "taken_at": self.taken_at,
            "queues": _data(self.queues),
            "workers": _data(self.workers),
            "stores": stores,
            "problems": self.problems(),
        }

    def problems(self) -> dict[str, str]:
        """Return why parts failed, by their names."""
        parts: dict[str, Part[Any]] = {"queues": self.queues, "workers": self.workers}
        for name, store in self.stores.items():
            parts |= {f"{name}: {part}": getattr(store, part) for part in STORE_PARTS}
        return {name: part.problem for name, part in parts.items() if part.problem}

    def lock_lines(self) -> list[str]:
        """Return a line for each lock that keeps operations waiting."""
        read = {name: store.connections.value for name, store in self.stores.items()}
        return [f"{name}: {line}" for name, found in read.items() if found is not None for line in lock_lines(found)]


def _data(part: Part[Any]) -> Any:
    """Return a part's value as data. Some have properties that programs want too."""
    value = part.value
    if isinstance(value, UsagePage):
        return [
            {**ledger.to_dict(), "fullness": ledger.fullness, "fullest_limit": ledger.fullest_limit}
            for ledger in value.ledgers
        ]
    if isinstance(value, LedgerUsage | WorkersState):
        return value.to_dict()
    if isinstance(value, tuple):
        return [asdict(element) for element in value]
    return None if value is None else asdict(value)


#: The names of a store's parts.
STORE_PARTS: Final = tuple(StoreParts.__dataclass_fields__)


class OverviewCollector:
    """Collects overviews. It keeps the adapters open in between. Thread-safe.

    Args:
        settings: The settings of the store.
        top: The number of the fullest namespaces to read; 0 reads none.
        seconds: The longest time of a collection.
    """

    def __init__(self, settings: Settings, *, top: int = 10, seconds: float = COLLECT_SECONDS) -> None:
        self._settings = settings
        self._top = top
        self._seconds = seconds
        self._runner = PartRunner(_describe)
        self._meter = ActivityMeter()
        self._lock = threading.Lock()
        self._stores = {name: _OpenedStore(settings, name) for name in adapters_in_use(settings)}

    def collect(self) -> Overview:
        """Collect an overview. It raises nothing: a failure is a problem of its part."""
        taken_at = time.time()
        sources: dict[str, Source] = {"queues": {"queues": self._queues}, "workers": {"workers": self._workers}}
        sources |= {f"store {name}": store.source(self._top) for name, store in self._stores.items()}
        with self._lock:
            parts = self._runner.run(sources, self._seconds)
        stores = {name: StoreParts(**parts[f"store {name}"]) for name in self._stores}
        return Overview(taken_at, parts["queues"]["queues"], parts["workers"]["workers"], stores)

    def close(self) -> None:
        """Close the adapters, unless a frozen server still holds one of them up."""
        if self._runner.wait(_CLOSE_SECONDS):
            for store in self._stores.values():
                store.close()

    def _queues(self) -> BrokerState:
        return read_queues(self._settings)

    def _workers(self) -> WorkersState | None:
        if not self._settings.queue.remote_control:
            return None
        fleet = ask_workers(self._settings, is_patient=False)
        return WorkersState(fleet, self._meter.measure(fleet, time.monotonic()))


class _OpenedStore:
    """An adapter that is opened when it is first needed. Only one thread uses it at a time."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._adapter: KeyValueStoreAdapter | None = None

    def source(self, top: int) -> Source:
        """Return the parts of the store, with so many of the fullest namespaces, perhaps none.

        The one comes first that waits for no lock on a table, and tells who holds one.
        """
        query = UsageQuery(limit=top or 1)
        parts: Source = {
            "connections": lambda: self._opened().database_connections(),
            "total": lambda: self._opened().total_usage(),
            "fullest": lambda: self._opened().rank_usage(query),
            "expiry": lambda: self._opened().expiry_report(),
            "tables": lambda: self._opened().table_sizes(),
        }
        return parts if top else {**parts, "fullest": lambda: None}

    def close(self) -> None:
        """Close the adapter if it was opened."""
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None

    def _opened(self) -> KeyValueStoreAdapter:
        if self._adapter is None:
            self._adapter = open_adapter(self._settings, self._name)
        return self._adapter


def _describe(error: Exception) -> str:
    """Describe a failure in one line, without a password."""
    if isinstance(error, KVStoreError | ConfigurationError):
        return redacted_url(str(error))
    text = redacted_url(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
