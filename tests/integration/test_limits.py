"""Limits of rows: a small quota of bytes must not let a namespace, or many of them, fill the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.errors import LimitExceededError, VersionConflictError
from kvworker.model import Operation, Step
from kvworker.testing.support import eventually, text_of

MakeAdapter: TypeAlias = Callable[..., SqlAdapter]


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def make_adapter(url: str) -> Iterator[MakeAdapter]:
    with ExitStack() as stack:

        def make(**config: Any) -> SqlAdapter:
            name = "sqlite" if url.startswith("sqlite") else "postgres"
            adapter = create_kv_store_adapter(name, {"url": url, "migrate_on_start": True, **config})
            assert isinstance(adapter, SqlAdapter)
            return stack.enter_context(adapter)

        yield make


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def query(engine: Engine, statement: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar_one()


def fill_records(adapter: SqlAdapter, limit: int) -> None:
    """Write one entry until the namespace may keep no more operation records."""
    for _ in range(limit):
        with suppress(LimitExceededError):
            adapter.increment("n", "counter")
    with pytest.raises(LimitExceededError) as refused:
        adapter.increment("n", "counter")
    assert refused.value.args == ("records", "n", limit, limit)


def test_a_batch_of_a_large_read_and_an_increment_keeps_a_small_record(
    make_adapter: MakeAdapter, engine: Engine
) -> None:
    adapter = make_adapter()
    adapter.set("n", "large", text_of(65_536))
    for _ in range(5):
        batch = adapter.batch("n", [Step("get", "large"), Step("increment", "counter")])
        assert len(getattr(batch.results[0], "value", "")) == 65_534
    assert query(engine, "SELECT sum(length(result)) FROM kv_records") < 2000


def test_a_larger_own_quota_brings_larger_limits(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter(namespace_quota_bytes=1000, namespace_entry_limit=2, namespace_record_limit=100)
    adapter.set_quota("n", 3999)
    for number in range(6):
        adapter.set("n", str(number), 0)
    with pytest.raises(LimitExceededError):
        adapter.set("n", "one more", 0)
    (usage,) = adapter.usage("n")
    assert (usage.entry_limit, usage.record_limit) == (6, 300)
    adapter.set_quota("n", None)
    assert adapter.usage("n")[0].entry_limit == 2


def test_a_namespace_keeps_as_many_operation_records_as_its_limit(make_adapter: MakeAdapter, engine: Engine) -> None:
    adapter = make_adapter(namespace_record_limit=100)
    fill_records(adapter, 100)
    assert query(engine, "SELECT count(*) FROM kv_records") <= 100
    with pytest.raises(LimitExceededError):
        adapter.delete("n", "missing")
    (usage,) = adapter.usage("n")
    assert (usage.record_count, usage.record_limit) == (100, 100)


def test_records_past_their_retention_make_room(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter(namespace_record_limit=100, operation_retention_seconds=0.5)
    adapter.set("n", "key", 0)

    def writes_again() -> bool:
        """Write to the full namespace, which the first refusal shows to be full."""
        try:
            return adapter.set("n", "key", "longer and longer").value is not None
        except LimitExceededError:
            return False

    for _ in range(100):
        if not writes_again():
            break
    eventually(writes_again, timeout_seconds=60)
    assert adapter.recompute_ledgers().drifts == ()


def test_refusals_are_counted_as_records_and_not_recorded_at_the_limit(
    make_adapter: MakeAdapter, engine: Engine
) -> None:
    adapter = make_adapter(namespace_record_limit=10)
    for number in range(20):
        with attempt(f"message {number}"), pytest.raises(VersionConflictError):
            adapter.set("n", "missing", 1, expected_version=5, operation_id=f"operation {number}")
    assert query(engine, "SELECT count(*) FROM kv_records") == 10
    assert adapter.usage("n")[0].record_count == 10
    assert adapter.recompute_ledgers().drifts == ()


def test_a_refusal_for_which_no_record_fits_is_decided_again(make_adapter: MakeAdapter) -> None:
    """Another copy of a refused message arrives when there is room. In every other case it would stay refused."""
    adapter, roomier = make_adapter(namespace_record_limit=10), make_adapter(namespace_record_limit=100)
    fill_records(adapter, 10)
    with attempt("message"), pytest.raises(LimitExceededError):
        adapter.set("n", "key", 1, operation_id="operation")
    with attempt("message"):
        assert not roomier.set("n", "key", 1, operation_id="operation").replayed
    with attempt("another message"), pytest.raises(VersionConflictError):
        adapter.set("new", "key", 1, expected_version=5, operation_id="operation")
    adapter.set("new", "key", 0)
    version = adapter.get("new", "key").version
    with attempt("another message"), pytest.raises(VersionConflictError):
        adapter.set("new", "key", 1, expected_version=5, operation_id="operation")
    assert adapter.get("new", "key").version == version


def test_a_withdrawn_refusal_is_no_longer_counted(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter()
    with attempt("first"), pytest.raises(VersionConflictError):
        adapter.set("n", "key", 1, expected_version=5, operation_id="operation")
    with attempt("second"), pytest.raises(VersionConflictError):
        adapter.set("n", "key", 1, expected_version=5, operation_id="operation")
    assert adapter.usage("n")[0].record_count == 1
    assert adapter.recompute_ledgers().drifts == ()


def test_the_total_counts_namespaces_beside_their_limit(make_adapter: MakeAdapter) -> None:
    """``LimitConformance`` shows that the limit holds."""
    adapter = make_adapter(namespace_limit=2)
    adapter.set("one", "key", 0)
    adapter.set_quota("two", 5000)
    with pytest.raises(LimitExceededError):
        adapter.set("three", "key", 0)
    total = adapter.total_usage()
    assert (total.namespace_count, total.namespace_limit) == (2, 2)


def test_a_namespace_that_holds_nothing_makes_room_for_another(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter(namespace_limit=1, operation_retention_seconds=0.2)
    adapter.set("one", "key", 0)
    adapter.delete("one", "key")

    def founds() -> bool:
        """Write to a new namespace."""
        try:
            return adapter.set("two", "key", 0).value == 0
        except LimitExceededError:
            return False

    eventually(founds, timeout_seconds=60)
    assert adapter.total_usage().namespace_count == 1
    assert adapter.recompute_ledgers().drifts == ()
    assert adapter.total_usage().namespace_count == 1


def test_a_recompute_counts_records_and_namespaces(make_adapter: MakeAdapter, engine: Engine) -> None:
    adapter = make_adapter()
    for namespace in ("one", "two"):
        adapter.increment(namespace, "key")
    with engine.begin() as connection:
        connection.execute(text("UPDATE kv_ledgers SET record_count = 0"))
        connection.execute(text("UPDATE kv_totals SET total = 40"))
    drifts = adapter.recompute_ledgers().drifts
    assert [(drift.namespace, drift.recorded_records, drift.actual_records) for drift in drifts] == [
        ("one", 0, 2),
        ("two", 0, 2),
    ]
    assert adapter.total_usage().namespace_count == 2
    assert adapter.recompute_ledgers().drifts == ()


def test_the_defaults_follow_the_quota(make_adapter: MakeAdapter) -> None:
    (usage,) = make_adapter().usage("n")
    assert (usage.entry_limit, usage.record_limit) == (16_384, 4_194_304)
    (usage,) = make_adapter(namespace_quota_bytes=64 * 1_048_576).usage("n")
    assert (usage.entry_limit, usage.record_limit) == (1_048_576, 268_435_456)
    (usage,) = make_adapter(namespace_quota_bytes=10).usage("n")
    assert (usage.entry_limit, usage.record_limit) == (1000, 1_000_000)


def test_operations_applied_together_found_their_namespaces(make_adapter: MakeAdapter) -> None:
    adapter = make_adapter(namespace_limit=3)
    operations = [Operation(f"n{number}", Step("set", "key", value=number), f"set {number}") for number in range(3)]
    assert None not in adapter.apply_many(operations)
    assert adapter.total_usage().namespace_count == 3
    more = [Operation("n3", Step("set", "key", value=3), "set 3")]
    assert adapter.apply_many(more) == [None]
