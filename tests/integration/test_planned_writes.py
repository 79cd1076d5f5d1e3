"""A planned write takes two round trips to PostgreSQL. Whatever fails in either, nothing is lost or applied twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import PipelineStatus, Trace, TransactionStatus

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.postgres import dialect
from kvworker.adapters.postgres.pipelining import Call, run_pipelined
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.errors import BatchRefusedError, NamespaceQuotaExceededError, StoreUnavailableError, VersionConflictError
from kvworker.model import Step
from kvworker.testing import eventually

TWO_SETS = (Step("set", "k", 2), Step("set", "new", 3))


@pytest.fixture
def adapter(postgres_url: str) -> Iterator[SqlAdapter]:
    with make_adapter(postgres_url) as adapter:
        adapter.set("n", "k", 1)
        yield adapter


def make_adapter(url: str, **config: Any) -> SqlAdapter:
    adapter = create_kv_store_adapter("postgres", {"url": url, **config})
    assert isinstance(adapter, SqlAdapter)
    return adapter


def round_trips(adapter: SqlAdapter, directory: Path, work: Callable[[], object]) -> int:
    """Count the answers that the driver waits for: the server ends each with a message."""
    path = directory / "trace"
    with path.open("wb") as file:

        def trace(connection: psycopg.Connection[Any]) -> None:
            connection.pgconn.trace(file.fileno())
            connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)

        adapter._executor.run(trace)
        work()
        adapter._executor.run(lambda connection: connection.pgconn.untrace())
    return path.read_text().count("\tReadyForQuery\t")


def test_a_planned_write_takes_two_round_trips(adapter: SqlAdapter, tmp_path: Path) -> None:
    writes: dict[str, Callable[[], object]] = {
        "touch": lambda: adapter.touch("n", "k", 60),
        "persist": lambda: adapter.persist("n", "k"),
        "batch": lambda: adapter.batch("n", TWO_SETS),
        "not atomic": lambda: adapter.batch("n", TWO_SETS, atomic=False),
    }
    for name, write in writes.items():
        # Also when the driver prepares the statements, and when it has.
        assert [round_trips(adapter, tmp_path, write) for _ in range(8)] == [2] * 8, name


def test_a_refused_condition_takes_two_round_trips_and_no_lock(
    adapter: SqlAdapter, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    def compare_and_set() -> None:
        with pytest.raises(VersionConflictError) as refused:
            adapter.set("n", "k", 2, expected_version=1)
        assert refused.value.actual_version == adapter.get("n", "k").version

    read = 1
    with connection.transaction():
        connection.execute("SELECT FROM kv_entries FOR UPDATE")
        # Outside of a pipeline, the driver prepares a statement in a round trip of its own.
        counts = [round_trips(adapter, tmp_path, compare_and_set) for _ in range(12)]
        assert counts[-4:] == [2 + read] * 4


def test_a_batch_may_be_larger_than_the_sockets_buffers(postgres_url: str) -> None:
    steps = [Step("set", f"k{number}", "x" * 1_000_000) for number in range(4)]
    with make_adapter(postgres_url, namespace_quota_bytes=10_000_000) as adapter:
        assert not adapter.batch("n", steps).replayed
        assert not adapter.batch("n", [*steps, Step("get", "k0")]).replayed
        with pytest.raises(NamespaceQuotaExceededError):
            adapter.batch("n", [Step("set", f"l{number}", "x" * 1_000_000) for number in range(9)])
        assert adapter.recompute_ledgers().drifts == ()


@pytest.mark.parametrize("state", ["23505", "40001", "53100", "57014"])
@pytest.mark.parametrize("table", ["kv_entries", "kv_records"], ids=["first round trip", "second round trip"])
def test_a_failed_planned_write_leaves_nothing_behind(
    adapter: SqlAdapter,
    connection: psycopg.Connection[Any],
    table: str,
    state: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with failing(connection, f"BEFORE INSERT ON {table}", state):
        # Often enough that the driver prepares statements which the server skips.
        for _ in range(8):
            with pytest.raises(StoreUnavailableError):
                adapter.batch("n", TWO_SETS, operation_id="once")
    assert connection.execute("SELECT key FROM kv_entries").fetchall() == [("k",)]
    assert not adapter.was_applied("n", "once")
    for _ in range(8):
        assert not adapter.batch("n", TWO_SETS).replayed
    assert adapter.recompute_ledgers().drifts == ()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_conflict_at_the_commit_is_retried(adapter: SqlAdapter, connection: psycopg.Connection[Any]) -> None:
    deferred = "AFTER INSERT ON kv_records DEFERRABLE INITIALLY DEFERRED"
    with failing(connection, deferred, "40001", times=2):
        assert not adapter.batch("n", (Step("increment", "k"),)).replayed
    assert adapter.get("n", "k").value == 2


@pytest.mark.parametrize("number", [1, 2])
def test_a_connection_that_is_lost_is_replaced_and_the_write_applied_once(
    adapter: SqlAdapter, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """After the second round trip it is committed, although its caller cannot know."""
    calls: list[Sequence[Call]] = []

    def run_and_lose(connection: psycopg.Connection[Any], statements: Sequence[Call]) -> list[psycopg.Cursor[Any]]:
        calls.append(statements)
        cursors = run_pipelined(connection, statements)
        if len(calls) == number:
            connection.close()
            raise psycopg.OperationalError
        return cursors

    monkeypatch.setattr(dialect, "run_pipelined", run_and_lose)
    result = adapter.batch("n", (Step("increment", "k"),), operation_id="once")
    assert result.replayed == (number == 2)
    assert [getattr(each, "value", None) for each in result.results] == [2]
    assert adapter.get("n", "k").value == 2


def test_a_process_that_freezes_between_the_two_loses_its_locks_and_tries_again(
    postgres_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[Call]] = []

    def freeze_and_run(own: psycopg.Connection[Any], statements: Sequence[Call]) -> list[psycopg.Cursor[Any]]:
        calls.append(statements)
        if len(calls) == 2:
            pid = (own.info.backend_pid,)
            query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            eventually(lambda: connection.execute(query, pid).fetchone() == (0,), timeout_seconds=60)
            connection.execute("SELECT FROM kv_entries FOR UPDATE")
        return run_pipelined(own, statements)

    with make_adapter(postgres_url, statement_timeout_seconds=0.3) as adapter:
        adapter.set("n", "k", 1)
        monkeypatch.setattr(dialect, "run_pipelined", freeze_and_run)
        assert not adapter.batch("n", (Step("increment", "k"),)).replayed
        assert adapter.get("n", "k").value == 2
    assert len(calls) == 4


def test_a_connection_goes_back_idle_after_each_outcome(postgres_url: str) -> None:
    """It is the only one of its pool, so all run on it."""
    with make_adapter(postgres_url, pool={"size": 1, "max_overflow": 0}, namespace_quota_bytes=100) as adapter:
        adapter.set("n", "k", 1)
        pids = set()
        for _ in range(8):
            check_refusals(adapter)
            adapter.touch("n", "k", 60)
            pids.add(adapter._executor.run(check_idle))
        assert len(pids) == 1
        assert adapter.recompute_ledgers().drifts == ()


def check_refusals(adapter: KeyValueStoreAdapter) -> None:
    with pytest.raises(VersionConflictError):
        adapter.set("n", "k", 2, expected_version=1)
    with pytest.raises(BatchRefusedError):
        adapter.batch("n", (Step("set", "new", 1), Step("set", "k", 2, expected_version=1)))
    with pytest.raises(NamespaceQuotaExceededError) as refused:
        adapter.batch("n", (Step("set", "large", "x" * 200),))
    assert refused.value.requested_bytes == 202


def check_idle(connection: psycopg.Connection[Any]) -> int:
    assert connection.pgconn.transaction_status == TransactionStatus.IDLE
    assert connection.pgconn.pipeline_status == PipelineStatus.OFF
    return connection.info.backend_pid


@contextmanager
def failing(connection: psycopg.Connection[Any], event: str, state: str, *, times: int = 1000) -> Iterator[None]:
    """Fail a trigger's event so often with this SQLSTATE. A rollback does not reset the sequence that counts it."""
    connection.execute("CREATE SEQUENCE failures")
    connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'undone' USING ERRCODE = '{state}'; END IF;"
        " RETURN NEW; END $$"
    )
    kind = "CONSTRAINT TRIGGER" if "DEFERRED" in event else "TRIGGER"
    connection.execute(f"CREATE {kind} fail {event} FOR EACH ROW EXECUTE FUNCTION fail()")
    yield
    connection.execute("DROP FUNCTION fail CASCADE; DROP SEQUENCE failures")
