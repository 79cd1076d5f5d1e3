"""The statements and rules that operators copy from the pages, against real servers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.record_ids import record_id, request_digest
from kvworker.errors import StoreUnavailableError
from kvworker.model import new_operation_id
from tests.support.documents import ROOT, read_blocks
from tests.support.processes import wait_until
from tests.support.roles import WorkerRole, worker_role
from tests.support.servers import PostgresServer

PAGES = ROOT / "docs" / "how-to"
SECURE = PAGES / "secure.md"


@pytest.fixture
def role(postgres_url: str) -> Iterator[WorkerRole]:
    with worker_role(postgres_url) as role:
        yield role


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def inline(page: Path, pattern: str) -> list[str]:
    """The texts between backticks of a page that match a pattern, in the page's order."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    found = re.findall(r"`([^`]+)`", prose.replace("\n", " "))
    return [text for text in found if re.fullmatch(pattern, text)]


class TestRedis:
    @pytest.fixture
    def admin(self, valkey_url: str) -> Iterator[Callable[[str], Any]]:
        """Makes the two users of the page, and connects as one of them."""
        (block,) = (each.text for each in read_blocks(SECURE) if each.text.startswith("user default off"))
        rules = {line.split()[1]: line.split()[1:] for line in block.splitlines()}
        clients: list[Any] = []

        def connected(login: str) -> Any:
            user, _, password = login.partition(":")
            clients.append(Redis.from_url(valkey_url, username=user, password=password))
            return clients[-1]

        owner: Any
        with Redis.from_url(valkey_url) as owner:
            try:
                for user in ("admin", "kvworker"):
                    owner.execute_command("ACL", "SETUSER", *rules[user])
                yield connected
            finally:
                for client in clients:
                    client.close()
                owner.execute_command("ACL", "DELUSER", "admin", "kvworker")

    def test_the_administrator_changes_a_password_in_the_steps_of_the_page(self, admin: Callable[[str], Any]) -> None:
        steps = inline(SECURE, r"(ACL SETUSER kvworker|CLIENT KILL USER) .+")
        assert steps == ["ACL SETUSER kvworker >new", "ACL SETUSER kvworker <old", "CLIENT KILL USER kvworker"]
        administrator, old = admin("admin:another-password"), admin("kvworker:password")
        assert old.ping()
        identity = old.client_id()
        for step in steps:
            assert administrator.execute_command(*step.replace("<old", "<password").split()) is not None
        assert admin("kvworker:new").ping()
        with pytest.raises(AuthenticationError):
            admin("kvworker:password").ping()
        with pytest.raises((AuthenticationError, RedisConnectionError)):
            old.ping()
        assert f"id={identity} " not in str(admin("kvworker:new").execute_command("CLIENT", "INFO"))

    def test_the_administrator_can_save_the_users_and_read_nothing(self, admin: Callable[[str], Any]) -> None:
        administrator = admin("admin:another-password")
        for command in inline(SECURE, "ACL SAVE|CONFIG REWRITE"):
            # It would need a file of the server's.
            assert administrator.execute_command("ACL", "DRYRUN", "admin", *command.split()) in (b"OK", "OK")
        for forbidden in ("GET k", "SET k v", "KEYS *", "LRANGE kv 0 -1", "FLUSHALL", "CONFIG GET *", "SHUTDOWN"):
            with pytest.raises(NoPermissionError):
                administrator.execute_command(*forbidden.split())


def test_the_statements_that_change_a_password_in_postgresql(postgres_url: str, role: WorkerRole) -> None:
    change, end = inline(SECURE, ".* kvworker_worker PASSWORD .*|SELECT pg_terminate_backend.*")
    with connect(postgres_url) as superuser, connect(role.url) as session:
        for statement in (change, end):
            superuser.execute(statement.replace("kvworker_worker", role.name).encode())
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_the_query_that_names_who_holds_a_lock(
    postgres_server: PostgresServer, postgres_url: str, role: WorkerRole
) -> None:
    (query,) = (each.text for each in read_blocks(PAGES / "troubleshooting.md") if "pg_blocking_pids" in each.text)
    monitor = f"{role.name}_monitor"
    postgres_server.execute(
        sql.SQL("CREATE ROLE {} LOGIN IN ROLE pg_monitor, pg_signal_backend").format(sql.Identifier(monitor))
    )
    try:
        with create_kv_store_adapter("postgres", {"url": role.url, "statement_timeout_seconds": 90}) as adapter:
            adapter.set("n", "k", 1)
            with closing(connect(role.url)) as holder, connect(role.url.replace(role.name, monitor)) as watcher:
                holder.execute("BEGIN")
                holder.execute("SELECT FROM kv_entries FOR UPDATE")
                writer = threading.Thread(target=adapter.set, args=("n", "k", 2))
                writer.start()
                pid = holder.info.backend_pid

                def rows() -> dict[int, list[int]]:
                    return {row[0]: row[1] for row in watcher.execute(query.encode()).fetchall()}

                wait_until(lambda: [pid] in rows().values(), timeout_seconds=60, what="the writer's wait")
                assert rows()[pid] == []
                (end,) = inline(PAGES / "troubleshooting.md", r"SELECT pg_terminate_backend\(PID\)")
                assert watcher.execute(end.replace("PID", str(pid)).encode()).fetchone() == (True,)
                writer.join()
            assert adapter.get("n", "k").value == 2
    finally:
        postgres_server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(monitor)))


def test_the_restored_database_gets_the_name_of_the_old_one_while_workers_run(postgres_server: PostgresServer) -> None:
    """Beside an adapter that keeps its sessions and what it knows of the lost database, as a running worker's does."""
    old, restored = (postgres_server.create_database() for _ in range(2))
    names = {"kv": old, "kv_lost": f"{old}_lost", "kv_restored": restored}

    def run(statement: str) -> None:
        postgres_server.execute(re.sub(r"\bkv\w*", lambda name: names[name[0]], statement))

    (block,) = (each.text for each in read_blocks(PAGES / "backup.md") if "ALLOW_CONNECTIONS" in each.text)
    *renames, reopen = inline(PAGES / "backup.md", "ALTER DATABASE .*")
    assert (len(renames), len(block.splitlines())) == (2, 2)
    try:
        with create_kv_store_adapter("postgres", {"url": postgres_server.url(restored)}) as adapter:
            adapter.set("n", "k", "restored")
        with create_kv_store_adapter("postgres", {"url": postgres_server.url(old)}) as worker:
            worker.set("n", "k", "lost")
            worker.set("later", "k", "lost")
            with pytest.raises(psycopg.errors.ObjectInUse, match="is being accessed by other users"):
                run(renames[0])
            for statement in (*block.splitlines(), renames[0]):
                run(statement)
            with pytest.raises(StoreUnavailableError):
                worker.set("n", "k", "lost")
            run(renames[1])
            assert worker.get("n", "k").value == "restored"
            worker.set("later", "k", "new")
            report = worker.verify()
            assert report is not None
            assert (report.problems, report.entries) == ((), 2)
        run(reopen)
        with create_kv_store_adapter("postgres", {"url": postgres_server.url(names["kv_lost"])}) as adapter:
            assert adapter.get("later", "k").value == "lost"
    finally:
        for database in names.values():
            postgres_server.drop_database(database)


def test_the_query_that_shows_whether_vacuums_keep_up(postgres_url: str) -> None:
    (query,) = (each.text for each in read_blocks(PAGES / "deployment.md") if "pg_stat_user_tables" in each.text)
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter, connect(postgres_url) as connection:
        adapter.set("n", "k", 1)
        found = {row[0]: row for row in connection.execute(query.encode())}
        assert {"kv_entries", "kv_ledgers", "kv_records", "kv_totals"} <= found.keys()


@pytest.mark.parametrize(("key", "value"), [(10, 12), (50, 12), (10, 112)])
def test_the_size_of_an_entry_is_the_one_of_the_page(postgres_url: str, key: int, value: int) -> None:
    page = (PAGES / "deployment.md").read_text()
    found = re.search(
        r"takes (\d+) bytes with its index, ([\d.]+) times its value, and ([\d.]+) times its namespace", page
    )
    assert found is not None
    fixed, by_value, by_name = map(float, found.groups())
    namespace, count = 5, 20_000
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO kv_entries (namespace, key, value, size_bytes, previous_bytes, version)"
            " SELECT rpad('n' || mod(i, 100), %s, 'x'), rpad(i || '-', %s, 'x'), repeat('x', %s), 1, 1, i"
            " FROM generate_series(1, %s) i ORDER BY md5(i::text)",
            (namespace, key, value, count),
        )
        (size,) = connection.execute("SELECT pg_total_relation_size('kv_entries')").fetchone() or (0,)
    assert size / count == pytest.approx(fixed + by_value * value + by_name * (namespace + key), rel=0.1)


def test_the_size_of_an_operation_record_is_the_one_of_the_page(postgres_url: str) -> None:
    found = re.search(r"record of a `set` takes\s(\d+)\sbytes with its\sindexes", (PAGES / "deployment.md").read_text())
    assert found is not None
    processes, count = [new_operation_id() for _ in range(4)], 100_000
    ids = [f"{process}-{number:08x}" for number in range(count // len(processes)) for process in processes]
    with connect(postgres_url) as connection:
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY kv_records (stamp, request, kept, id, namespace) FROM STDIN") as copy,
        ):
            for number, operation_id in enumerate(ids):
                stamp, request = 1_800_000_000_000_000 + number * 1000, request_digest(operation_id, "")
                copy.write_row((stamp, request, 3600, record_id(operation_id), f"ns-{number % 32:04}"))
        (size,) = connection.execute("SELECT pg_total_relation_size('kv_records')").fetchone() or (0,)
    assert size / count == pytest.approx(int(found[1]), rel=0.02)
    assert int(found[1]) <= 120


def test_the_emptied_table_of_old_records_is_truncated_while_workers_write(postgres_url: str) -> None:
    (block,) = (each.text for each in read_blocks(PAGES / "deployment.md") if "TRUNCATE" in each.text)
    holds_records, limit, truncate = (line.encode() for line in block.splitlines())
    end = threading.Event()

    def write(adapter: KeyValueStoreAdapter, thread: int) -> int:
        number = 0
        while not end.is_set():
            number += 1
            adapter.set("n", str(thread), number, operation_id=f"{thread}/{number}")
        return number

    with (
        create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter,
        connect(postgres_url) as operator,
        connect(postgres_url) as reader,
        ThreadPoolExecutor(2) as threads,
    ):
        adapter.set("n", "k", 1)
        operator.execute(
            "INSERT INTO kv_operations_0004 SELECT 'n', 'old-' || i, md5('request'), '', now() - interval '1 s' * i"
            " FROM generate_series(0, 20000) i"
        )
        operator.execute(
            "UPDATE kv_operations_0004 SET expires_at = now() + interval '1 day' WHERE operation_id = 'old-0'"
        )
        adapter.recompute_ledgers()
        writers = [threads.submit(write, adapter, thread) for thread in range(2)]
        try:
            adapter.prune_operations()
            assert operator.execute(holds_records).fetchone() == (True,)
            operator.execute("UPDATE kv_operations_0004 SET expires_at = now()")
            adapter.prune_operations()
            assert operator.execute(holds_records).fetchone() == (False,)
            operator.execute(limit)
            reader.execute("BEGIN")
            reader.execute(holds_records)
            with pytest.raises(psycopg.errors.LockNotAvailable, match="canceling statement due to lock timeout"):
                operator.execute(truncate)
            reader.execute("COMMIT")
            wait_until(lambda: truncated(operator, truncate), timeout_seconds=60, what="the lock")
            is_small = operator.execute("SELECT pg_total_relation_size('kv_operations_0004') < 100000")
            assert is_small.fetchone() == (True,)
            written = adapter.get("n", "0").value
            wait_until(lambda: adapter.get("n", "0").value != written, timeout_seconds=60, what="another write")
        finally:
            end.set()
        assert all(writer.result() for writer in writers)
        report = adapter.verify()
        assert report is not None
        assert report.problems == ()


def truncated(connection: psycopg.Connection[Any], truncate: bytes) -> bool:
    try:
        connection.execute(truncate)
    except psycopg.errors.LockNotAvailable:
        return False
    return True
