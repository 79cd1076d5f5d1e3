from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from tests.support.store_processes import (
    PROCESSES,
    Store,
    count,
    crowd,
    fill,
    mix,
    press,
    race,
    running_processes,
    swap,
    together,
)

_SNAPSHOT = text(
    "SELECT l.namespace, sum(l.used_bytes), sum(l.entry_count),"
    " (SELECT coalesce(sum(e.size_bytes), 0) FROM kv_entries e WHERE e.namespace = l.namespace OR l.namespace = ''),"
    " (SELECT count(*) FROM kv_entries e WHERE e.namespace = l.namespace OR l.namespace = ''),"
    " sum(l.lent_bytes), coalesce(sum(CASE WHEN l.slot > 0 THEN l.limit_bytes END), 0), max(l.slot),"
    " max(CASE WHEN l.slot = 0 THEN l.used_bytes + l.lent_bytes END)"
    " FROM kv_ledgers l GROUP BY l.namespace"
)
_RECORDS = text(
    "SELECT l.namespace, sum(l.entry_count), sum(l.record_count),"
    " (SELECT count(*) FROM kv_records o WHERE o.namespace = l.namespace)"
    " + (SELECT coalesce(sum(e.reserve), 0) FROM kv_entries e WHERE e.namespace = l.namespace)"
    " FROM kv_ledgers l WHERE l.namespace <> '' GROUP BY l.namespace"
)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with running_processes() as pool:
        yield pool


@pytest.fixture(params=["postgres", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    url = request.getfixturevalue(f"{request.param}_url")
    if request.param == "postgres":
        return "postgres", {"url": url}
    # Eight processes that write without a pause starve each other for longer than real callers do.
    config = {"url": url, "migrate_on_start": True, "busy_timeout_seconds": 60.0}
    with create_kv_store_adapter("sqlite", config) as adapter:
        adapter.migrate()
    return "sqlite", config


@pytest.fixture
def engine(store: Store) -> Iterator[Engine]:
    with closing_engine(store[1]["url"]) as engine:
        yield engine


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def limited(store: Store, **config: Any) -> Store:
    return store[0], {**store[1], **config}


def start(
    processes: ProcessPoolExecutor, store: Store, work: Callable[[KeyValueStoreAdapter, int], Any]
) -> list[Future[Any]]:
    return [processes.submit(together, store, seed, work) for seed in range(PROCESSES)]


def check_ledgers(engine: Engine, quotas: dict[str, int]) -> int:
    """Check in one snapshot that every ledger equals its entries and keeps its quota; return how many are split."""
    with engine.connect() as connection:
        rows = connection.execute(_SNAPSHOT).all()
    for namespace, used_bytes, entry_count, actual_bytes, actual_entries, lent_bytes, shares, _, granted in rows:
        assert (used_bytes, entry_count) == (actual_bytes, actual_entries), namespace
        quota_bytes = quotas[""] if namespace == "" else quotas["namespace"]
        assert used_bytes <= granted <= quota_bytes
        assert lent_bytes == shares
    check_records(engine)
    return sum(slots > 0 for *_, slots, _ in rows)


def check_records(engine: Engine) -> list[tuple[str, int, int]]:
    """Check that the operation records are as many as counted; return each namespace's entries and records."""
    with engine.connect() as connection:
        rows = connection.execute(_RECORDS).all()
    for namespace, _, counted, actual in rows:
        assert counted == actual, namespace
    return [(namespace, entries, records) for namespace, entries, records, _ in rows]


def watch(engine: Engine, futures: list[Future[Any]], quotas: dict[str, int]) -> Counter[str]:
    """Check snapshots until the processes are done; return how many there were, and how many split ledgers."""
    seen = Counter[str]()
    while wait(futures, timeout=0.005, return_when=FIRST_EXCEPTION).not_done:
        seen["split"] += check_ledgers(engine, quotas)
        seen["snapshots"] += 1
        if any(future.done() and future.exception() for future in futures):
            break
    check_ledgers(engine, quotas)
    return seen


def test_writers_never_exceed_a_namespaces_quota(processes: ProcessPoolExecutor, store: Store, engine: Engine) -> None:
    futures = start(processes, limited(store, namespace_quota_bytes=1500), fill)
    seen = watch(engine, futures, {"namespace": 1500})
    refused = sum(future.result() for future in futures)
    assert seen["snapshots"] > 5
    assert refused > 0


def test_writers_never_exceed_the_limits_of_entries_records_and_namespaces(
    processes: ProcessPoolExecutor, store: Store, engine: Engine
) -> None:
    limits = {"namespace_entry_limit": 60, "namespace_record_limit": 800, "namespace_limit": 5}
    with create_kv_store_adapter(*store) as adapter:
        adapter.set("namespace", "key", 1)
    futures = start(processes, limited(store, **limits), press)
    refused = Counter[str]()
    while wait(futures, timeout=0.005, return_when=FIRST_EXCEPTION).not_done:
        ledgers = check_records(engine)
        assert len(ledgers) <= 5
        assert all(entries <= 60 and records <= 800 for _, entries, records in ledgers)
        if any(future.done() and future.exception() for future in futures):
            break
    for future in futures:
        refused += future.result()
    assert set(refused) == {"entries", "records", "namespaces"}
    with create_kv_store_adapter(*store) as adapter:
        assert adapter.recompute_ledgers().drifts == ()


def test_first_increments_at_the_same_moment_lose_nothing(processes: ProcessPoolExecutor, store: Store) -> None:
    for future in start(processes, store, count):
        future.result()
    with create_kv_store_adapter(*store) as adapter:
        values = {adapter.get("namespace", f"counter {number}").value for number in range(20)}
    assert values == {2 * 3 * PROCESSES}


def test_an_operation_id_used_by_several_processes_at_once_is_applied_once(
    processes: ProcessPoolExecutor, store: Store, engine: Engine
) -> None:
    outcomes = Counter[tuple[str, int, bool]]()
    values: dict[tuple[str, int], set[str]] = {}
    for future in start(processes, store, race):
        for kind, number, value, replayed in future.result():
            outcomes[kind, number, replayed] += 1
            values.setdefault((kind, number), set()).add(repr(value))
    for kind in ("increment", "set", "delete", "batch", "claim", "together other", "together namespace"):
        for number in range(30):
            assert outcomes[kind, number, False] == 1
            assert outcomes[kind, number, True] == PROCESSES - 1
            assert len(values[kind, number]) == 1
    with create_kv_store_adapter(*store) as adapter:
        assert adapter.get("namespace", "counter").value == 60
        assert adapter.get("other", "counter").value == 30
        assert [adapter.get("namespace", f"batched {key}").value for key in "abc"] == [30, 30, 30]
    check_ledgers(engine, {"namespace": 1_048_576})


def test_processes_that_compare_and_set_lose_nothing(processes: ProcessPoolExecutor, store: Store) -> None:
    conflicts = sum(future.result() for future in start(processes, store, swap))
    with create_kv_store_adapter(*store) as adapter:
        value = adapter.get("namespace", "list").value
    assert isinstance(value, list)
    assert sorted(map(str, value)) == sorted(f"{seed}/{number}" for seed in range(PROCESSES) for number in range(10))
    assert conflicts > 0


@pytest.mark.parametrize("global_quota_bytes", [None, 1500])
def test_everything_at_once_leaves_ledgers_correct(
    processes: ProcessPoolExecutor, store: Store, engine: Engine, global_quota_bytes: int | None
) -> None:
    quotas = {"namespace": 700, "": global_quota_bytes or 0}
    seen = do_everything(processes, store, engine, mix, quotas)
    assert seen["snapshots"] > 5


@pytest.mark.parametrize("global_quota_bytes", [None, 50_000])
def test_a_crowded_ledger_is_split_and_its_quota_holds(
    processes: ProcessPoolExecutor, postgres_url: str, global_quota_bytes: int | None
) -> None:
    quotas = {"namespace": 60_000, "": global_quota_bytes or 0}
    with closing_engine(postgres_url) as engine:
        seen = do_everything(processes, ("postgres", {"url": postgres_url}), engine, crowd, quotas)
    assert seen["split"] > 0
    assert seen["GlobalQuotaExceededError" if global_quota_bytes else "NamespaceQuotaExceededError"] > 5


def do_everything(
    processes: ProcessPoolExecutor,
    store: Store,
    engine: Engine,
    work: Callable[[KeyValueStoreAdapter, int], Any],
    quotas: dict[str, int],
) -> Counter[str]:
    """Run the work in all processes while checking snapshots, and check the final state."""
    limits = {"namespace_quota_bytes": quotas["namespace"], "global_quota_bytes": quotas[""] or None}
    crowded = limited(store, **limits)
    futures = start(processes, crowded, work)
    seen = watch(engine, futures, quotas)
    for future in futures:
        seen += future.result() or Counter()
    with closing(create_kv_store_adapter(*crowded)) as adapter:
        assert adapter.recompute_ledgers().drifts == ()
        adapter.sweep_expired()
        check_ledgers(engine, quotas)
    return seen
