"""The commands of docs/how-to/backup.md, under load: what they restore is a whole store of one moment."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from tests.support.backups import BLOCKS, documented_lines, libpq_url, run_documented
from tests.support.processes import wait_until
from tests.support.replication import ReplicationNode, system_user
from tests.support.servers import PostgresServer

_THREADS = 3


class Load:
    """Writers of one store: each increments its own counter with its own operation ids, and churns other entries."""

    def __init__(self, adapter: KeyValueStoreAdapter) -> None:
        self._adapter = adapter
        self._acknowledged: list[tuple[int, str]] = []
        self._end = threading.Event()

    def acknowledged(self) -> list[tuple[int, str]]:
        """The increments that were answered so far: the counter and the operation id."""
        return list(self._acknowledged)

    def wait_for_more(self) -> None:
        """Wait until every writer has made some more increments."""
        before = len(self._acknowledged)
        wait_until(lambda: len(self._acknowledged) >= before + 30 * _THREADS, timeout_seconds=60)

    def _write(self, thread: int) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            operation_id = f"{thread}/{number}"
            increment(self._adapter, thread, operation_id)
            self._acknowledged.append((thread, operation_id))
            self._adapter.set(f"churn {number % 4}", str(number % 7), "x" * (number % 50))
            if number % 5 == 0:
                self._adapter.delete(f"churn {number % 4}", str(number % 7))
            if number % 20 == 0:
                self._adapter.recompute_ledgers()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write as long as the block runs."""
        with ThreadPoolExecutor(_THREADS) as threads:
            writers = [threads.submit(self._write, thread) for thread in range(_THREADS)]
            try:
                self.wait_for_more()
                yield
            finally:
                self._end.set()
        for writer in writers:
            writer.result()


def increment(adapter: KeyValueStoreAdapter, counter: int, operation_id: str) -> bool:
    return adapter.increment("counters", str(counter), operation_id=operation_id).replayed


def counters(adapter: KeyValueStoreAdapter) -> list[object]:
    return [adapter.get("counters", str(thread)).value or 0 for thread in range(_THREADS)]


def check_restored(
    adapter: KeyValueStoreAdapter, before: list[tuple[int, str]], everything: list[tuple[int, str]]
) -> None:
    """Check that the store is whole, and that each operation counts once in it if everything is repeated.

    Args:
        adapter: The restored store.
        before: The writes acknowledged before the moment of the backup.
        everything: All acknowledged writes.
    """
    report = adapter.verify()
    assert report is not None
    assert report.problems == ()
    restored = {item for item in everything if adapter.was_applied("counters", item[1])}
    assert set(before) <= restored
    assert set(everything) - restored, "the backup holds everything, so it shows nothing"
    # No half of a write: each counter counts the records.
    assert counters(adapter) == [Counter(counter for counter, _ in restored)[thread] for thread in range(_THREADS)]
    for item in everything:
        assert increment(adapter, *item) == (item in restored), item
    for item in everything:
        assert increment(adapter, *item), item
    assert counters(adapter) == [Counter(counter for counter, _ in everything)[thread] for thread in range(_THREADS)]


def test_a_dump(postgres_server: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    restored = "kv_restored"
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter:
        load = Load(adapter)
        with load.running():
            before = load.acknowledged()
            run_documented("pg_dump", tmp_path, {}, KV_URL=libpq_url(postgres_url))
            assert stat.S_IMODE((tmp_path / "kv.dump").stat().st_mode) == 0o600
            load.wait_for_more()
    admin = libpq_url(postgres_url, database="postgres")
    run_documented("createdb", tmp_path, {}, ADMIN_URL=admin)
    try:
        run_documented("pg_restore", tmp_path, {}, RESTORED_URL=libpq_url(postgres_url, database=restored))
        with create_kv_store_adapter("postgres", {"url": postgres_server.url(restored)}) as adapter:
            check_restored(adapter, before, load.acknowledged())
    finally:
        postgres_server.drop_database(restored)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the servers' own user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="kvworker-backup-"))
    if user := system_user():
        shutil.chown(directory, user, user)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_a_point_in_time(directory: Path) -> None:
    archive, base = directory / "archive", directory / "base"
    archive.mkdir()
    if user := system_user():
        shutil.chown(archive, user, user)
    server, restored = (ReplicationNode(directory / name, system_user()) for name in ("server", "restored"))
    server.initialize()
    write_settings(server, documented_lines("wal_level").replace("/var/lib/kv-archive", str(archive)))
    try:
        server.start()
        before, everything, moment = lose_a_namespace(server, base)
        restore(server, restored, base, archive, moment)
        with create_kv_store_adapter("postgres", {"url": url_of(restored)}) as adapter:
            check_restored(adapter, before, everything)
    finally:
        server.kill()
        restored.kill()


def lose_a_namespace(server: ReplicationNode, base: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str]], str]:
    """Take a base backup under load, clear the counters by mistake, and archive the log."""
    with create_kv_store_adapter("postgres", {"url": url_of(server), "migrate_on_start": True}) as adapter:
        load = Load(adapter)
        with load.running():
            take_base_backup(server, base)
            load.wait_for_more()
            before = load.acknowledged()
            with server.connect() as connection:
                (moment,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
            load.wait_for_more()
            adapter.clear("counters")
        with server.connect() as connection:
            (name,) = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
            archived = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"
            wait_until(lambda: connection.execute(archived, (name,)).fetchone() == (True,), timeout_seconds=60)
        return before, load.acknowledged(), moment


def take_base_backup(server: ReplicationNode, base: Path) -> None:
    url = libpq_url(url_of(server))
    run_documented("pg_basebackup", base.parent, {"/var/lib/kv-base": str(base)}, KV_URL=url)


def restore(server: ReplicationNode, restored: ReplicationNode, base: Path, archive: Path, moment: str) -> None:
    """Replay the log up to the moment on a copy of the base backup."""
    server.kill()
    base.rename(restored.data)
    settings = documented_lines("restore_command", recovery_target_time=moment)
    write_settings(restored, settings.replace("/var/lib/kv-archive", str(archive)), "postgresql.auto.conf")
    (restored.data / "recovery.signal").touch()
    if user := system_user():
        for path in (restored.data, *restored.data.rglob("*")):
            shutil.chown(path, user, user)
    restored.start()
    with restored.connect() as connection:
        in_recovery = "SELECT pg_is_in_recovery()"
        wait_until(lambda: connection.execute(in_recovery).fetchone() == (False,), timeout_seconds=60)


def write_settings(node: ReplicationNode, settings: str, file: str = "postgresql.conf") -> None:
    with (node.data / file).open("a") as target:
        target.write(settings)


def url_of(node: ReplicationNode) -> str:
    return f"postgresql+psycopg://postgres@127.0.0.1:{node.port}/postgres"


def copy_as_documented(directory: Path) -> None:
    """Run the Python of the document."""
    (code,) = (block.text for block in BLOCKS if block.language == "python")
    subprocess.run([shutil.which("python3") or "python3", "-c", code], cwd=directory, check=True, timeout=60)
    assert stat.S_IMODE((directory / "kv-backup.sqlite").stat().st_mode) == 0o600


def copy_with_backup(directory: Path) -> None:
    with (
        closing(sqlite3.connect(directory / "kv.sqlite")) as running,
        closing(sqlite3.connect(directory / "kv-backup.sqlite")) as copy,
    ):
        running.backup(copy)


@pytest.mark.parametrize("copy", [copy_as_documented, copy_with_backup])
def test_a_copy_of_sqlite(tmp_path: Path, copy: Any) -> None:
    config = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True, "busy_timeout_seconds": 60.0}
    with create_kv_store_adapter("sqlite", config) as adapter:
        load = Load(adapter)
        with load.running():
            before = load.acknowledged()
            copy(tmp_path)
            load.wait_for_more()
    for file in tmp_path.glob("kv.sqlite*"):
        file.unlink()
    (tmp_path / "kv-backup.sqlite").rename(tmp_path / "kv.sqlite")
    with create_kv_store_adapter("sqlite", config) as adapter:
        check_restored(adapter, before, load.acknowledged())
