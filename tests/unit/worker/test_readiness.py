"""The readiness of adapters in a worker's main process, on real SQLite files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kvworker import Settings
from kvworker.adapters import create_kv_store_adapter
from kvworker.errors import SchemaError
from kvworker.worker.readiness import Readiness, check_adapters
from tests.support.processes import wait_until


def make_settings(file: Path, **options: Any) -> Settings:
    adapters = {"sqlite": {"url": f"sqlite:///{file}", **options}}
    return Settings.from_mapping({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "kv.sqlite"
    with create_kv_store_adapter("sqlite", {"url": f"sqlite:///{file}"}) as adapter:
        adapter.migrate()
    return file


def test_only_the_first_success_may_migrate(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "kv.sqlite", migrate_on_start=True)
    with pytest.raises(SchemaError):
        check_adapters(settings, may_migrate=False)
    check_adapters(settings)
    check_adapters(settings, may_migrate=False)


def test_a_problem_and_its_end_are_noticed(file: Path) -> None:
    readiness, changes = Readiness(make_settings(file), lambda: None), list[str]()
    readiness.check_at_start()
    readiness.watch(lambda: changes.append(readiness.problem))
    try:
        hidden = file.rename(file.with_name("hidden"))
        readiness.report_failure()
        wait_until(lambda: len(changes) == 1, what="the problem")
        assert "kvworker migrate" in changes[0]
        file.unlink()
        hidden.rename(file)
        wait_until(lambda: len(changes) == 2, what="the recovery")
        assert changes[1] == ""
    finally:
        readiness.stop()


def test_a_database_that_another_process_locks_is_usable(file: Path) -> None:
    settings = make_settings(file, busy_timeout_seconds=0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        check_adapters(settings)
