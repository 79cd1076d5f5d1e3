"""What PostgreSQL writes into its own log about refused writes: no value, and with the documented settings, little."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.errors import CounterOverflowError, InvalidValueTypeError, KVStoreError, NamespaceQuotaExceededError
from kvworker.model import JSONValue
from tests.support.documents import ROOT, read_blocks
from tests.support.roles import WorkerRole, worker_role
from tests.support.servers import PostgresServer

VALUE = "a-value-that-is-secret"
PAGE = ROOT / "docs" / "how-to" / "deployment.md"
#: 64 bits hold none of them.
TOO_LARGE, MUCH_TOO_LARGE = 9_876_543_210_987_654_321, 10**40 + 1
SUM = 2**63 + 1_000_000


def make(url: str) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("postgres", {"url": url, "namespace_quota_bytes": 1_000})


@contextmanager
def logging_into(server: PostgresServer, lines: list[str]) -> Iterator[None]:
    """Add what the server logs to a list. It logs an error before it answers with it."""
    begin = server.log.stat().st_size
    yield
    lines += server.log.read_bytes()[begin:].decode().splitlines(keepends=True)


def log_of_a_refusal(server: PostgresServer, url: str) -> str:
    """Return what the server logs about a write that a quota refuses."""
    lines: list[str] = []
    with make(url) as adapter:
        # The first write to a namespace meets an error of its own, which makes the ledger.
        adapter.set("n", "first", VALUE)
        with logging_into(server, lines), pytest.raises(NamespaceQuotaExceededError):
            adapter.set("n", "k", VALUE * 50)
    return "".join(lines)


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (VALUE, InvalidValueTypeError),
        ({"a": VALUE}, InvalidValueTypeError),
        (1.25, InvalidValueTypeError),
        (TOO_LARGE, CounterOverflowError),
        (-TOO_LARGE, CounterOverflowError),
        (MUCH_TOO_LARGE, CounterOverflowError),
        (2**63 - 1, CounterOverflowError),
        (None, CounterOverflowError),
    ],
)
def test_a_refused_increment_logs_no_value(
    postgres_server: PostgresServer, postgres_url: str, stored: JSONValue, error: type[KVStoreError]
) -> None:
    lines: list[str] = []
    with make(postgres_url) as adapter, logging_into(postgres_server, lines):
        if stored is not None:
            adapter.set("n", "k", stored)
        for _ in range(2):
            with pytest.raises(error):
                adapter.increment("n", "k", delta=1_000_001, initial_value=SUM - 1_000_001)
    assert any("ERROR:" in line for line in lines)
    for secret in (VALUE, "1.25", str(TOO_LARGE), str(MUCH_TOO_LARGE), str(SUM)):
        assert not [line for line in lines if secret in line]


def test_a_refused_append_or_removal_logs_no_value(postgres_server: PostgresServer, postgres_url: str) -> None:
    lines: list[str] = []
    with make(postgres_url) as adapter, logging_into(postgres_server, lines):
        for value in (VALUE, {VALUE: VALUE}):
            adapter.set("n", "k", value)
            with pytest.raises(InvalidValueTypeError):
                adapter.append("n", "k", [VALUE])
        adapter.append("n", "l", [VALUE])
        for key in ("l", "new"):
            with pytest.raises(NamespaceQuotaExceededError):
                adapter.append("n", key, [VALUE * 50])
        for _ in range(2):
            adapter.get_and_delete("n", "k", operation_id="once")
    assert any("ERROR:" in line for line in lines)
    assert not [line for line in lines if VALUE in line]


@pytest.mark.parametrize("counter", [-(2**63), -1, 0, 10**17, 10**18, 2**63 - 2])
def test_a_counter_of_any_length_is_incremented(postgres_url: str, counter: int) -> None:
    with make(postgres_url) as adapter:
        adapter.set("n", "k", counter)
        # The size is known from the second time on, and another statement is used.
        assert adapter.increment("n", "k").value == counter + 1
        assert adapter.increment("n", "k", delta=-1).value == counter
        assert adapter.increment("n", "k").value == counter + 1


def test_a_refusal_by_a_quota_logs_its_statement_and_no_value(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    log = log_of_a_refusal(postgres_server, postgres_url)
    assert log.count("STATEMENT:") == 2
    # As the page says.
    assert 5_000 < len(log) < 9_000
    assert VALUE not in log


@pytest.fixture
def quiet(postgres_server: PostgresServer, postgres_url: str) -> Iterator[WorkerRole]:
    """A role of a worker with the page's settings."""
    (block,) = (block.text for block in read_blocks(PAGE) if "ALTER ROLE" in block.text)
    assert block in (ROOT / "config" / "roles.sql").read_text()
    with worker_role(postgres_url) as role:
        for statement in re.findall(r"^ALTER ROLE .*;$", block, re.MULTILINE):
            postgres_server.execute(statement.replace("kvworker_worker", role.name))
        yield role


def test_with_the_documented_settings_a_refusal_logs_little(postgres_server: PostgresServer, quiet: WorkerRole) -> None:
    log = log_of_a_refusal(postgres_server, quiet.url)
    assert "STATEMENT" not in log
    assert log.count("ERROR:") == 2
    assert len(log) < 1_000


@pytest.mark.parametrize("setting", ["log_min_duration_statement = 0", "log_parameter_max_length_on_error = -1"])
def test_with_the_documented_settings_logged_statements_show_no_value(
    postgres_server: PostgresServer, postgres_url: str, quiet: WorkerRole, setting: str
) -> None:
    """Without them they do."""
    database = make_url(postgres_url).database
    postgres_server.execute(f"ALTER DATABASE {database} SET {setting}")
    assert VALUE in log_of_a_refusal(postgres_server, postgres_url)
    assert VALUE not in log_of_a_refusal(postgres_server, quiet.url)
