"""The design's promises about PostgreSQL: one statement for each write, lean records, distributable tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.record_ids import record_id
from kvworker.errors import InvalidValueTypeError, RecordTooLargeError
from kvworker.testing import eventually
from kvworker.testing.apply_many import make_operation


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


@pytest.fixture(params=[None, 10_000_000], ids=["no global quota", "global quota"])
def adapter(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[KeyValueStoreAdapter]:
    with create_kv_store_adapter("postgres", {"url": postgres_url, "global_quota_bytes": request.param}) as adapter:
        yield adapter


@pytest.fixture
def statements(adapter: KeyValueStoreAdapter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of all statements that run from now on."""
    statements: list[str] = []
    execute = psycopg.Cursor.execute

    def spy(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(query)
        assert cursor.connection.autocommit
        return execute(cursor, query, *args, **kwargs)

    adapter.set("n", "k", 1)
    monkeypatch.setattr(psycopg.Cursor, "execute", spy)
    return statements


def test_an_operation_is_one_statement(adapter: KeyValueStoreAdapter, statements: list[str]) -> None:
    adapter.set("n", "k", "longer", ttl_seconds=60)
    adapter.get("n", "k")
    adapter.increment("n", "c", operation_id="once")
    adapter.delete("n", "k")
    for _ in range(2):
        adapter.append("n", "l", [1, "b"], max_items=4)
    assert adapter.get_and_delete("n", "l").value == [1, "b", 1, "b"]
    assert not adapter.get_and_delete("n", "l").found
    assert len(statements) == 8


def test_what_one_statement_cannot_do_is_planned(
    adapter: KeyValueStoreAdapter, statements: list[str], connection: psycopg.Connection[Any]
) -> None:
    """Trimming, empty lists, what is no list, expired entries, large values, and text that somebody else wrote."""
    assert (adapter.append("n", "l", [1, 2, 3], max_items=2).dropped, len(statements) > 1) == (1, True)
    assert adapter.append("n", "l", [4], max_items=2).dropped == 1
    assert adapter.get("n", "l").value == [3, 4]
    adapter.set("n", "empty", [])
    assert adapter.append("n", "empty", [1]).length == 1
    with pytest.raises(InvalidValueTypeError):
        adapter.append("n", "k", [1])
    for value in ("[ ]", "[\n]", " [0]", "[0] ", '["\\"]"]', '["]'):
        connection.execute("UPDATE kv_entries SET value = %s WHERE key = 'empty'", [value])
        if value == '["]':
            with pytest.raises(Exception, match="22P02"):
                adapter.append("n", "empty", [1])
        else:
            assert adapter.append("n", "empty", [1]).length == 1 + ("0" in value) + ("\\" in value)
            assert adapter.get("n", "empty").found
    connection.execute("DELETE FROM kv_entries WHERE key = 'empty'")
    adapter.set("n", "large", "x" * 70_000)
    with pytest.raises(RecordTooLargeError):
        adapter.get_and_delete("n", "large")
    adapter.touch("n", "large", 0.01)
    eventually(lambda: not adapter.get("n", "large").found)
    assert not adapter.get_and_delete("n", "large").found
    adapter.recompute_ledgers()
    assert adapter.recompute_ledgers().drifts == ()


def test_appends_and_removals_race_with_other_writes(adapter: KeyValueStoreAdapter) -> None:
    """Whoever wins, the ledgers are right, and an operation id is applied once."""

    def write(number: int) -> object:
        match number % 6:
            case 0:
                return adapter.set("n", "k", [0] * (number % 5), ttl_seconds=0.001 if number % 4 else None)
            case 1:
                return adapter.delete("n", "k")
            case 2:
                return adapter.get_and_delete("n", "k", operation_id=f"take {number // 12}").value
            case _:
                return adapter.append("n", "k", [1], max_items=3, operation_id=f"append {number // 12}").length

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(480)))
        lengths = list(threads.map(lambda _: adapter.append("n", "once", [1], operation_id="once").length, range(8)))
        adapter.set("n", "taken", "value")
        taken = list(threads.map(lambda _: adapter.get_and_delete("n", "taken", operation_id="t").value, range(8)))
    assert lengths == [1] * 8
    assert taken == ["value"] * 8
    assert adapter.recompute_ledgers().drifts == ()


def test_apply_many_is_one_round_trip(adapter: KeyValueStoreAdapter, statements: list[str]) -> None:
    reads = [make_operation("get", "k"), make_operation("get", "k", namespace="other")]
    assert [getattr(result, "found", None) for result in adapter.apply_many(reads)] == [True, False]
    assert len(statements) == 1
    assert None not in adapter.apply_many(
        [*reads, make_operation("increment", "c"), make_operation("set", "k", value="longer")]
    )
    begin, *_, commit = statements[1:]
    assert begin.startswith("BEGIN")
    assert commit == "COMMIT"
    assert len(statements[1:]) == 2 + 2 + 1 + 1


def test_large_values_are_not_read_together(adapter: KeyValueStoreAdapter) -> None:
    adapter.set("n", "large", "x" * 200_000)
    adapter.set("n", "larger", "x" * 300_000)
    large, larger, missing = adapter.apply_many([make_operation("get", key) for key in ("large", "larger", "missing")])
    assert (large, larger) == (None, None)
    assert missing is not None
    assert adapter.apply_many([make_operation("get", "large")]) != [None]


def test_a_replay_reads_its_record_in_a_second_one(adapter: KeyValueStoreAdapter, statements: list[str]) -> None:
    adapter.set("n", "c", 1, operation_id="once")
    assert adapter.set("n", "c", 1, operation_id="once").replayed
    assert len(statements) == 3


def test_repeated_writes_that_keep_an_entrys_size_touch_no_ledger(
    adapter: KeyValueStoreAdapter, statements: list[str]
) -> None:
    for value in range(10, 14):
        adapter.set("n", "k", value)
        adapter.increment("n", "c", initial_value=10)
    assert sum("kv_ledgers" in statement for statement in statements) == 6
    assert len(statements) == 8
    # A wrong prediction costs one more statement.
    statements.clear()
    assert adapter.set("n", "k", "longer").version
    assert adapter.increment("n", "c", delta=1000).value == 1014
    assert len(statements) == 4
    assert adapter.recompute_ledgers().drifts == ()


def test_a_record_never_holds_the_value_again(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any]
) -> None:
    adapter.set("n", "k", {"secret": "the-value"}, operation_id="plain")
    plain = adapter.get("n", "k").version
    adapter.set("n", "k", {"secret": "the-value"}, ttl_seconds=60, operation_id="expiring")
    adapter.increment("n", "c", delta=42, operation_id="counter")
    versions = {key: adapter.get("n", key).version for key in "kc"}
    adapter.append("n", "l", ["the-value"], ttl_seconds=60, operation_id="appended")
    adapter.merge("n", "m", {"a": "the-value"}, operation_id="merged")
    appended = adapter.get("n", "l").version
    adapter.delete("n", "k", operation_id="deleted")
    rows = connection.execute("SELECT id, result, stamp, kv_records::text FROM kv_records").fetchall()
    results = {id_: (result, stamp) for id_, result, stamp, _ in rows}
    expiring, version = results[record_id("expiring")]
    assert re.fullmatch(r"[0-9.]+ v", expiring)
    assert version == versions["k"]
    assert results[record_id("plain")] == (None, plain)
    assert results[record_id("counter")] == ("42 v", versions["c"])
    assert results[record_id("deleted")][0] == "true"
    assert re.fullmatch(rf"\[1, 0, [0-9.]+, {appended}\]", str(results[record_id("appended")][0]))
    assert not any("the-value" in row for *_, row in rows)


def test_the_tables_can_be_distributed_by_namespace(connection: psycopg.Connection[Any]) -> None:
    keys = connection.execute(
        "SELECT c.conrelid::regclass::text, a.attname FROM pg_constraint c"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]"
        " WHERE c.contype = 'p' AND c.conrelid::regclass::text LIKE 'kv\\_%'"
    ).fetchall()
    assert dict(keys).items() >= dict.fromkeys(("kv_entries", "kv_ledgers", "kv_records"), "namespace").items()
    nothing = {
        "sequences": "SELECT count(*) FROM pg_class WHERE relkind = 'S'",
        "foreign keys": "SELECT count(*) FROM pg_constraint WHERE contype = 'f'",
        "triggers": "SELECT count(*) FROM pg_trigger",
        "functions": "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    }
    assert {name: connection.execute(query).fetchone() for name, query in nothing.items()} == dict.fromkeys(
        nothing, (0,)
    )
