"""``verify`` finds no problem in a store that is in use, and every kind of damage that SQL can do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.record_ids import record_id
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.errors import InvalidValueTypeError, SchemaError
from kvworker.model import COMPUTED_STEPS, Step, StepBeginResult, StoreProblem, VerifyReport, make_step
from kvworker.testing.apply_many import apply_all, make_operation
from tests.support.roles import worker_role
from tests.support.servers import PostgresServer
from tests.support.store_processes import PROCESSES, crowd, mix, running_processes, together

_CONFIG = {"namespace_quota_bytes": 20_000, "global_quota_bytes": 40_000}

_EMPTY = (
    "DELETE FROM kv_entries",
    "DELETE FROM kv_ledgers",
    "DELETE FROM kv_records",
    "DELETE FROM kv_operations_0004",
    "DELETE FROM kv_totals",
    "INSERT INTO kv_totals (name, total) VALUES ('namespaces', 0)",
)


@pytest.fixture(scope="module", params=["postgres", "partitioned", "sqlite"])
def url(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('verify')}/kv.sqlite"
        return
    with postgres_server.temporary_database(partitioned=request.param == "partitioned") as name:
        yield postgres_server.url(name)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def adapter(url: str, engine: Engine) -> Iterator[KeyValueStoreAdapter]:
    """A store with every kind of record, emptied before."""
    with create_kv_store_adapter(_kind(url), {"url": url, "migrate_on_start": True, **_CONFIG}) as adapter:
        adapter.migrate()
        spoil(engine, *_EMPTY)
        fill(adapter)
        yield adapter


def _kind(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgres"


def fill(adapter: KeyValueStoreAdapter) -> None:
    """Make every kind of record: of each action, with and without a TTL, of batches and of refusals."""
    adapter.set("one", "text", "ü\u0000", operation_id="first")
    adapter.set("one", "object", {"b": [1.5e300, None, 2**70], "a": ""}, ttl_seconds=60)
    adapter.set("one", "expired", 1, ttl_seconds=1e-6)
    adapter.increment("one", "counter", initial_value=-9)
    adapter.increment("one", "counter", ttl_seconds=60)
    adapter.touch("one", "counter", 60)
    adapter.persist("one", "nothing")
    adapter.delete("one", "nothing")
    steps = [
        Step("get", "text"),
        Step("increment", "counter"),
        Step("increment", "text"),
        Step("delete", "object"),
        Step("touch", "nothing", ttl_seconds=5),
    ]
    adapter.batch("one", steps, atomic=False)
    apply_all(adapter, [make_operation("set", "k", namespace=name, value=[name]) for name in ("two", "three")])
    adapter.set_quota("three", 30_000)
    adapter.set("cleared", "key", 1)
    adapter.clear("cleared")


def fill_computed(adapter: KeyValueStoreAdapter) -> None:
    """Make a record of each computed step, alone and in a batch."""
    for namespace in ("alone", "together"):
        begun = adapter.apply_step(namespace, make_step("step_begin", {"key": "step", "arguments": 1}), None)
        assert isinstance(begun, StepBeginResult)
        held: dict[str, Any] = {"key": "step", "token": begun.token}
        permit: dict[str, Any] = {"key": "permits", "holder": "a", "ttl_seconds": 60}
        steps = [
            make_step("step_begin", {"key": "step", "arguments": 1}),
            make_step("step_renew", held),
            make_step("step_finish", {**held, "state": "done", "value": ["mailed"]}),
            make_step("step_begin", {"key": "step"}),
            make_step("append", {"key": "list", "items": ["a"], "ttl_seconds": 60}),
            make_step("merge", {"key": "card", "patch": {"number": "1"}, "ttl_seconds": 60}),
            make_step("get_and_delete", {"key": "card"}),
            make_step("get_and_delete", {"key": "card"}),
            make_step("acquire_permit", permit),
            make_step("acquire_permit", {**permit, "holder": "b"}),
            make_step("renew_permit", permit),
            make_step("release_permit", {"key": "permits", "holder": "a"}),
            make_step("rate_limit", {"key": "rate", "per_seconds": 60}),
            make_step("rate_limit", {"key": "rate", "per_seconds": 60}),
        ]
        assert {step.action for step in steps} == set(COMPUTED_STEPS)
        if namespace == "together":
            adapter.batch(namespace, steps)
            continue
        for step in steps:
            adapter.apply_step(namespace, step, None)
        for value in ("text", "[", "", None, [], [1], {"error": 1}):
            adapter.set(namespace, "removed", value)
            adapter.apply_step(namespace, make_step("get_and_delete", {"key": "removed"}), None)


def verify(adapter: KeyValueStoreAdapter) -> VerifyReport:
    report = adapter.verify()
    assert report is not None
    assert report.problem_count == len(report.problems)
    return report


def spoil(engine: Engine, *statements: str, **parameters: Any) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), {"first": record_id("first"), **parameters})


def test_a_store_with_every_kind_of_record_is_consistent(adapter: KeyValueStoreAdapter) -> None:
    report = verify(adapter)
    assert report.problems == ()
    assert (report.namespaces, report.entries) == (4, 5)
    assert report.records >= 13


def test_the_records_of_computed_steps_are_consistent(adapter: KeyValueStoreAdapter) -> None:
    fill_computed(adapter)
    assert verify(adapter).problems == ()


def test_recorded_refusals_are_consistent(adapter: KeyValueStoreAdapter) -> None:
    for name in ("first attempt", "second attempt"):
        with attempt(name), pytest.raises(InvalidValueTypeError):
            adapter.increment("one", "text", operation_id="refused")
    assert verify(adapter).problems == ()


_Found: TypeAlias = list[tuple[str, str | None, str]]

_LEDGER = "UPDATE kv_ledgers SET {} WHERE namespace = 'one' AND slot = 0"
_ENTRY = "UPDATE kv_entries SET {} WHERE namespace = 'one' AND key = 'text'"
_RECORD = "UPDATE kv_records SET {} WHERE id = :first"
_FIRST = f"record {record_id('first').hex()}"

#: The damage that a recompute repairs, the check that finds it, its namespace and a part of the detail.
LEDGER_DAMAGE: dict[str, tuple[str, _Found]] = {
    "bytes": (_LEDGER.format("used_bytes = used_bytes + 5"), [("ledger", "one", "bytes for")]),
    "entries": (_LEDGER.format("entry_count = entry_count - 1"), [("ledger", "one", "entries for")]),
    "records": (_LEDGER.format("record_count = record_count + 3"), [("ledger", "one", "operation records for")]),
    "no ledger": (
        "DELETE FROM kv_ledgers WHERE namespace = 'two'",
        # The ledgers are no longer as many as kv_totals counts.
        [("ledger", "two", "0 bytes for 7"), ("totals", None, "counts 4, and there are 3")],
    ),
    "global bytes": (
        "UPDATE kv_ledgers SET used_bytes = used_bytes + 5 WHERE namespace = '' AND slot = 0",
        [("ledger", None, "bytes for")],
    ),
    "lost entry": (
        "DELETE FROM kv_entries WHERE namespace = 'two'",
        [("ledger", "two", "7 bytes for 0, 1 entries for 0"), ("ledger", None, "bytes for")],
    ),
    "lost record": (
        "DELETE FROM kv_records WHERE id = :first",
        [("ledger", "one", "operation records for")],
    ),
    "orphan share": (
        "INSERT INTO kv_ledgers (namespace, slot, used_bytes, entry_count, limit_bytes, entry_limit, record_limit)"
        " VALUES ('ghost', 3, 0, 0, 0, 0, 0)",
        [("shares", "ghost", "no first row")],
    ),
    "totals": ("UPDATE kv_totals SET total = 9", [("totals", None, "counts 9, and there are 4")]),
    "no totals": ("DELETE FROM kv_totals", [("totals", None, "counts no count, and there are 4")]),
}

ROW_DAMAGE: dict[str, tuple[str, _Found]] = {
    "size": (_ENTRY.format("size_bytes = size_bytes + 1"), [("entry", "one", "key 'text': its size is recorded as")]),
    "not JSON": (
        _ENTRY.format("""value = '"secret', size_bytes = 7"""),
        [("entry", "one", "key 'text': its value is not canonical")],
    ),
    "not canonical": (
        _ENTRY.format("value = '{ \"a\": 1}', size_bytes = 9"),
        [("entry", "one", "key 'text': its value is not canonical")],
    ),
    "reserve": (_ENTRY.format("reserve = 0"), [("entry", "one", "0 operation records in reserve")]),
    "blank key": (_ENTRY.format("key = ' '"), [("entry", "one", "key ' ': key must not be blank")]),
    "result": (_RECORD.format("result = 'x'"), [("record", "one", f"{_FIRST}: its result has no known")]),
    "batch": (_RECORD.format("result = '[\"v\"]'"), [("record", "one", f"{_FIRST}: its result has no")]),
    "refusals": (
        _RECORD.format("request = NULL, result = '[1]'"),
        [("record", "one", f"{_FIRST}: it does not hold refusals")],
    ),
    "short id": (_RECORD.format("id = substr(id, 1, 8)"), [("record", "one", "its id has 8 bytes instead of 9")]),
    "kept": (_RECORD.format("kept = 0"), [("record", "one", f"{_FIRST}: it is kept for no time")]),
}


def assert_found(report: VerifyReport, expected: _Found) -> None:
    """Each expected problem is found; a damaged entry may also make the ledger's sums wrong."""
    for check, namespace, detail in expected:
        assert any((p.check, p.namespace) == (check, namespace) and detail in p.detail for p in report.problems), report
    assert "secret" not in str(report)


@pytest.mark.parametrize("damage", LEDGER_DAMAGE)
def test_a_wrong_ledger_is_found_and_a_recompute_corrects_it(
    adapter: KeyValueStoreAdapter, engine: Engine, damage: str
) -> None:
    statement, expected = LEDGER_DAMAGE[damage]
    spoil(engine, statement)
    report = verify(adapter)
    assert len(report.problems) == len(expected), report
    assert_found(report, expected)
    adapter.recompute_ledgers()
    assert verify(adapter).problems == ()


def test_a_ledger_that_lent_more_than_its_shares_hold_is_found(postgres_url: str) -> None:
    """Only on PostgreSQL does a ledger lend anything."""
    with create_kv_store_adapter("postgres", {"url": postgres_url, **_CONFIG}) as adapter:
        fill(adapter)
        engine = create_engine(postgres_url)
        spoil(engine, _LEDGER.format("lent_bytes = lent_bytes + 1, lent_records = 2"))
        engine.dispose()
        assert_found(verify(adapter), [("shares", "one", "shares: +1 bytes, +2 records")])
        adapter.recompute_ledgers()
        assert verify(adapter).problems == ()


@pytest.mark.parametrize("damage", ROW_DAMAGE)
def test_a_wrong_row_is_found(adapter: KeyValueStoreAdapter, engine: Engine, damage: str) -> None:
    statement, expected = ROW_DAMAGE[damage]
    spoil(engine, statement)
    report = verify(adapter)
    assert_found(report, expected)
    assert {problem.check for problem in report.problems} <= {expected[0][0], "ledger"}


def test_a_record_that_never_expires_is_found(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(engine, _RECORD.format("stamp = 9000000000000000000"))
    assert_found(verify(adapter), [("record", "one", "it expires later than any retention allows")])


def test_a_ledger_above_its_limit_is_found(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    """The table's checks prevent that, but not entries that its ledger does not count."""
    spoil(
        engine,
        "INSERT INTO kv_entries (namespace, key, value, size_bytes, previous_bytes)"
        " VALUES ('one', 'big', :text, 20002, 0)",
        text=f'"{"x" * 20_000}"',
    )
    expected: _Found = [("ledger", "one", "bytes for"), ("quota", "one", "bytes, and its limit was 20,000")]
    assert_found(verify(adapter), expected)


@pytest.mark.parametrize(
    ("statement", "repair", "detail"),
    [
        (
            "ALTER TABLE kv_totals RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO kv_totals",
            "the table kv_totals is missing",
        ),
        (
            "ALTER TABLE kv_entries RENAME COLUMN granted TO given",
            "ALTER TABLE kv_entries RENAME COLUMN given TO granted",
            "the column granted of kv_entries is missing",
        ),
    ],
)
def test_a_wrong_schema_is_found(
    adapter: KeyValueStoreAdapter, engine: Engine, statement: str, repair: str, detail: str
) -> None:
    spoil(engine, statement)
    try:
        assert verify(adapter).problems == (StoreProblem("schema", None, detail),)
    finally:
        spoil(engine, repair)


def test_wrong_constraints_and_indexes_are_found(postgres_url: str) -> None:
    """Only PostgreSQL can drop a constraint."""
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter:
        engine = create_engine(postgres_url)
        spoil(
            engine,
            "ALTER TABLE kv_totals DROP CONSTRAINT kv_totals_limit",
            "ALTER TABLE kv_totals DROP CONSTRAINT kv_totals_pkey",
            "DROP INDEX kv_entries_expires_at",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'kv_records_expiry'::regclass",
        )
        engine.dispose()
        details = {problem.detail for problem in verify(adapter).problems}
    assert details == {
        "the check kv_totals_limit of kv_totals is missing",
        "the primary key of kv_totals is missing, or is another one",
        "the index kv_entries_expires_at of kv_entries is missing",
        "the index kv_records_expiry of kv_records is invalid",
    }


def test_text_that_is_not_utf_8_is_found(sqlite_url: str) -> None:
    """Only SQLite can hold it."""
    with create_kv_store_adapter("sqlite", {"url": sqlite_url, "migrate_on_start": True}) as adapter:
        adapter.set("one", "text", 1)
        engine = create_engine(sqlite_url)
        spoil(engine, "UPDATE kv_entries SET value = CAST(x'ff' AS TEXT)")
        engine.dispose()
        (problem,) = verify(adapter).problems
    assert "key 'text': its value is not canonical JSON" in problem.detail


def test_values_of_many_pages_are_read(url: str, engine: Engine) -> None:
    """A page ends after a few large values, and before the thousandth small one."""
    with create_kv_store_adapter(_kind(url), {"url": url, "migrate_on_start": True}) as adapter:
        spoil(engine, *_EMPTY)
        adapter.set_quota("large", 2**30)
        for number in range(4):
            adapter.set("large", str(number), "x" * 3_000_000)
        steps = [Step("set", str(number), value=number) for number in range(900)]
        for namespace in ("a", "b", "z"):
            adapter.batch(namespace, steps)
        report = verify(adapter)
    assert report == VerifyReport(4, 2704, 8)


def test_it_changes_nothing_even_where_the_first_use_migrates(sqlite_url: str) -> None:
    with (
        create_kv_store_adapter("sqlite", {"url": sqlite_url, "migrate_on_start": True}) as adapter,
        pytest.raises(SchemaError, match="kvworker migrate"),
    ):
        adapter.verify()


def test_a_user_who_may_only_read_can_verify(postgres_url: str) -> None:
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter:
        fill(adapter)
    with worker_role(postgres_url) as role:
        role.revoke("INSERT, UPDATE, DELETE")
        with create_kv_store_adapter("postgres", {"url": role.url, **_CONFIG}) as adapter:
            assert verify(adapter).problems == ()


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_store_under_load_is_consistent(kind: str, request: pytest.FixtureRequest) -> None:
    """Eight processes write, sweep and recompute a few namespaces; on PostgreSQL they split ledgers."""
    config = {
        "url": request.getfixturevalue(f"{kind}_url"),
        "namespace_quota_bytes": 60_000,
        "global_quota_bytes": 90_000,
    }
    if kind == "sqlite":
        config["busy_timeout_seconds"] = 60.0
    with create_kv_store_adapter(kind, config) as adapter, running_processes() as processes:
        adapter.migrate()
        futures = [
            processes.submit(together, (kind, config), seed, crowd if seed % 2 else mix) for seed in range(PROCESSES)
        ]
        reports = 0
        while wait(futures, timeout=0.01, return_when=FIRST_EXCEPTION).not_done:
            assert verify(adapter).problems == ()
            reports += 1
            if any(future.done() and future.exception() for future in futures):
                break
        for future in futures:
            future.result()
        assert reports > 3
        assert verify(adapter).problems == ()
