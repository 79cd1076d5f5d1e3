"""If the SQLite file cannot be used, operations raise a helpful error."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.errors import ConfigurationError, SchemaError, StoreUnavailableError


def make_adapter(path: Path, **config: Any) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("sqlite", {"url": f"sqlite:///{path}", "migrate_on_start": True, **config})


def test_a_lock_held_too_long_is_an_error_and_nothing_is_done(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    with make_adapter(path, busy_timeout_seconds=0.1) as adapter:
        adapter.set("namespace", "key", 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="busy_timeout_seconds") as caught:
            adapter.increment("namespace", "key", operation_id="operation")
        assert caught.value.operation_id == "operation"
        assert adapter.get("namespace", "key").value == 1
        other.close()
        assert adapter.increment("namespace", "key", operation_id="operation").value == 2


def test_the_log_is_cut_after_a_long_read(tmp_path: Path) -> None:
    path, limit = tmp_path / "kv.sqlite", 16 * 2**20
    log = path.with_name("kv.sqlite-wal")
    with make_adapter(path) as adapter:
        adapter.set("namespace", "key", "x")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM kv_entries").fetchall()
            for number in range(200):
                adapter.set("namespace", "key", str(number) * 100_000)
                if log.stat().st_size > 2 * limit:
                    break
            assert log.stat().st_size > 2 * limit
        for number in range(2):
            adapter.set("namespace", "key", number)
        assert log.stat().st_size <= limit
        assert adapter.get("namespace", "key").value == 1


def test_an_expiry_before_1970_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    with make_adapter(path) as adapter:
        adapter.set("namespace", "key", 1, ttl_seconds=600)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE kv_entries SET expires_at = -1.0")
        other.close()
        assert adapter.sweep_expired().deleted_rows == 1


def test_a_read_only_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    with make_adapter(path) as adapter:
        adapter.set("namespace", "key", 1)
        url = f"sqlite:///file:{path}?mode=ro&uri=true"
        with create_kv_store_adapter("sqlite", {"url": url}) as reader:
            assert reader.get("namespace", "key").value == 1
            with pytest.raises(StoreUnavailableError, match="read-only"):
                reader.set("namespace", "key", 2)


def test_a_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    path.write_text("this is a text, and long enough to be looked at as a database\n" * 100)
    with pytest.raises(ConfigurationError, match="not a SQLite database"):
        make_adapter(path).get("namespace", "key")


def test_a_path_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot open the database file"):
        make_adapter(tmp_path).get("namespace", "key")


def test_a_missing_directory_is_reported_or_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "kv.sqlite"
    with pytest.raises(ConfigurationError, match="three slashes"):
        make_adapter(path, migrate_on_start=False).get("namespace", "key")
    with make_adapter(path) as adapter:
        adapter.set("namespace", "key", 1)
    assert path.exists()


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        make_adapter(tmp_path / "file" / "kv.sqlite").get("namespace", "key")


def test_an_invalid_parameter_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"adapters\.sqlite\.url: the parameter 'timeout' is not supported"):
        create_kv_store_adapter("sqlite", {"url": f"sqlite:///{tmp_path}/kv.sqlite?timeout=soon"})


def test_a_file_without_the_schema_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="kvworker migrate"):
        make_adapter(tmp_path / "kv.sqlite", migrate_on_start=False).get("namespace", "key")


def test_an_acknowledged_write_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    with make_adapter(path) as adapter:
        adapter.set("namespace", "key", 1)
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_a_relative_path_means_the_same_file_in_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with make_adapter(Path("relative.sqlite")) as adapter:
        monkeypatch.chdir(tmp_path / "elsewhere")
        adapter.set("namespace", "key", 1)
    assert (tmp_path / "relative.sqlite").exists()
    assert not (tmp_path / "elsewhere" / "relative.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_a_database_in_memory_is_the_same_for_all_threads(url: str) -> None:
    with create_kv_store_adapter("sqlite", {"url": url}) as adapter, ThreadPoolExecutor(8) as threads:
        values = threads.map(lambda _: adapter.increment("namespace", "key").value, range(100))
        assert sorted(values) == list(range(1, 101))


@pytest.mark.parametrize("url", ["sqlite", "postgresql://host/database", "sqlite+aiosqlite:///kv.sqlite"])
def test_urls_of_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"adapters\.sqlite\.url"):
        create_kv_store_adapter("sqlite", {"url": url})
