"""The tables of ``stats``. They fit into 80 columns as long as names are short."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvworker.cli.output import make_table, shown_name
from kvworker.messaging.observer import Event
from kvworker.model import ExpiryReport, LedgerUsage, TableSize, escaped_lines
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, StoreParts, WorkersState
from kvworker.ops.overview.queues import BrokerState
from kvworker.ops.overview.units import bytes_text, count_text, duration_text, fullness_text
from kvworker.wording import counted

_NOTHING = "-"


def overview_tables(overview: Overview) -> RenderableType:
    """Make the tables of an overview, after a line for each lock and for each part that failed."""
    shown: list[RenderableType] = [Text(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(overview.taken_at)))]
    # They come first: a short terminal cuts the end.
    lines = overview.lock_lines() + [f"{name}: {problem}" for name, problem in overview.problems().items()]
    shown += (Text(escaped_lines(line), style="bold red") for line in lines)
    if overview.queues.value is not None:
        shown += _queues(overview.queues.value)
    if overview.workers.value is not None:
        shown += _workers(overview.workers.value.fleet)
        shown += _operations(overview.workers.value)
        if drifts := overview.workers.value.since_start.event(Event.DRIFT):
            shown.append(Text(f"recomputes found and corrected {counted(drifts, 'wrong ledger')}", style="bold red"))
    for name, store in overview.stores.items():
        shown += _store(name, store)
    return Group(*shown)


def _queues(broker: BrokerState) -> Iterator[RenderableType]:
    table = make_table("queue", "waiting", "oldest", numbers=("waiting", "oldest"))
    for queue in broker.queues:
        oldest = _NOTHING if queue.oldest_seconds is None else duration_text(queue.oldest_seconds)
        table.add_row(queue.name, f"{queue.depth:,}", oldest)
    yield table
    if broker.unacknowledged is not None:
        line = counted(broker.unacknowledged, "unacknowledged message")
        if broker.oldest_unacknowledged_seconds is not None:
            line += f", the first one taken {duration_text(broker.oldest_unacknowledged_seconds)} ago"
        yield Text(line)


def _workers(fleet: Fleet) -> Iterator[RenderableType]:
    numbers = ("slots", "active", "up")
    table = make_table("worker", "version", "pool", *numbers, "state", numbers=numbers)
    for worker in fleet.answers:
        table.add_row(shown_name(worker.name), *_worker_cells(worker))
    yield table
    if not fleet.answers:
        yield Text("no worker answers", style="bold red")
    if fleet.silent_count:
        yield Text(
            f"{counted(fleet.silent_count, 'worker')} connected to the broker without an answer", style="bold red"
        )
    for name in fleet.shared_names:
        yield Text.assemble("several workers have the name ", shown_name(name), style="bold red")


def _worker_cells(worker: WorkerAnswer) -> list[str | Text]:
    state = Text("ready", style="green")
    if worker.problem:
        state = Text(escaped_lines(worker.problem), style="bold red")
    return [
        shown_name(worker.version or _NOTHING),
        shown_name(worker.pool or _NOTHING),
        str(worker.concurrency),
        _NOTHING if worker.active is None else str(worker.active),
        duration_text(worker.uptime_seconds),
        state,
    ]


def _operations(workers: WorkersState) -> Iterator[RenderableType]:
    periods = {"since start": workers.since_start}
    if workers.recent is not None:
        periods = {f"last {duration_text(workers.recent.seconds)}": workers.recent, **periods}
    numbers = ("count", "per s", "p50", "p99", "wait p99", "refused", "unknown", "failed")
    table = make_table("operations", *numbers, numbers=numbers)
    for period, activity in periods.items():
        table.add_row(period, *_activity_cells(activity))
    yield table
    for period, activity in periods.items():
        if incidents := activity.incidents():
            text = ", ".join(f"{name} {count:,}" for name, count in incidents.items())
            is_overload = activity is workers.recent and activity.late
            yield Text(f"events, {period}: {text}", style="bold red" if is_overload else "")


def _activity_cells(activity: Activity) -> list[str]:
    times = [
        activity.quantile("execution_seconds", 0.5),
        activity.quantile("execution_seconds", 0.99),
        activity.quantile("queue_seconds", 0.99),
    ]
    counts = [activity.ended("refused", "denied", "invalid"), activity.ended("unknown"), activity.ended("failed")]
    return [
        f"{activity.operations:,}",
        f"{activity.per_second:,.1f}",
        *(_NOTHING if seconds is None else duration_text(seconds) for seconds in times),
        *(f"{count:,}" for count in counts),
    ]


def _store(name: str, store: StoreParts) -> Iterator[RenderableType]:
    if store.total.value is not None:
        yield Text(f"store {name}: {_total_line(store.total.value)}")
    if store.fullest.value is not None and store.fullest.value.ledgers:
        yield _fullest(store.fullest.value.ledgers)
    if store.expiry.value is not None:
        yield Text(_expiry_line(store.expiry.value))
    if store.tables.value:
        yield Text("size: " + ", ".join(map(_size_text, store.tables.value)))
    if store.connections.value is not None:
        connections = store.connections.value
        yield Text(
            f"database: {connections.total} of {connections.limit} connections, {connections.active} active,"
            f" {connections.waiting_for_lock} waiting for a lock"
        )


def _total_line(total: LedgerUsage) -> str:
    quota = "" if total.quota_bytes is None else f" of {bytes_text(total.quota_bytes)}"
    namespaces = "" if total.namespace_count is None else f", {counted(total.namespace_count, 'namespace')}"
    entries = counted(total.entry_count, "entry", "entries")
    return f"{bytes_text(total.used_bytes)}{quota}, {entries}{namespaces}"


def _fullest(ledgers: tuple[LedgerUsage, ...]) -> Table:
    numbers = ("entries", "used", "quota", "full")
    table = make_table("namespace", *numbers, numbers=numbers)
    for ledger in ledgers:
        quota = _NOTHING if ledger.quota_bytes is None else bytes_text(ledger.quota_bytes)
        cells = (f"{ledger.entry_count:,}", bytes_text(ledger.used_bytes), quota, fullness_text(ledger))
        table.add_row(shown_name(ledger.namespace), *cells)
    return table


def _expiry_line(report: ExpiryReport) -> str:
    ahead = ", ".join(f"{count_text(count)} within {duration_text(until)}" for until, count in report.cumulative())
    unswept = f"{count_text(report.unswept_count)} expired and not swept"
    lag = f" (since {duration_text(report.sweep_lag_seconds)})" if report.unswept_count else ""
    return f"expiry: {ahead}; {unswept}{lag}"


def _size_text(size: TableSize) -> str:
    return f"{size.name} {bytes_text(size.total_bytes)}"
