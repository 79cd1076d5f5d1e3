"""Claims of docs/explanation/security.md that no other test shows."""

from __future__ import annotations

import json
import pickle
import sqlite3
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from redis.exceptions import RedisError

from kvworker import KeyValueStore, Settings
from kvworker.adapters.postgres import make_adapter
from kvworker.adapters.sqlite import make_adapter as make_sqlite_adapter
from tests.support.processes import wait_until

_VALUE = "a-value-to-look-for"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.write_text, (self._file, "it ran")


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


def test_a_caller_runs_nothing_that_a_result_holds(valkey_url: str, client: Redis, tmp_path: Path) -> None:
    """Someone who reaches the results stores pickles and YAML there. The real result comes after them."""
    file = tmp_path / "ran"
    yaml = f"!!python/object/apply:pathlib.Path.write_text [!!python/object/apply:pathlib.Path [{file}], it ran]"
    with KeyValueStore(Settings.from_mapping({"queue": {"broker_url": valkey_url}})) as store:
        pending = store.submit("kv_get", {"namespace": "n", "key": "k"}, timeout=60)
        key = f"celery-task-meta-{pending.operation_id}"
        result = {"namespace": "n", "key": "k", "found": False}
        meta = {"status": "SUCCESS", "result": result, "task_id": pending.operation_id}
        for data in (pickle.dumps(Bomb(file)), yaml.encode(), json.dumps(meta).encode()):
            client.set(key, data)
            client.publish(key, data)
        assert pending.result().found is False
    assert not file.exists()


def test_no_name_and_no_value_is_part_of_a_statement(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    execute = psycopg.Cursor.execute

    def spy(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(query if isinstance(query, str) else str(query))
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", spy)
    with make_adapter({"url": postgres_url}) as adapter:
        adapter.set(_VALUE, _VALUE, _VALUE, operation_id=_VALUE)
        adapter.increment(_VALUE, "c", operation_id=_VALUE + "2")
        adapter.get(_VALUE, _VALUE)
        adapter.list_keys(_VALUE, prefix=_VALUE)
        adapter.delete(_VALUE, _VALUE)
        adapter.clear(_VALUE)
    assert statements
    assert not [statement for statement in statements if _VALUE in statement]


def test_a_removed_value_stays_in_its_record_until_that_is_pruned(tmp_path: Path) -> None:
    file = tmp_path / "kv.sqlite"
    options = {"url": f"sqlite:///{file}", "migrate_on_start": True, "operation_retention_seconds": 1}

    def records() -> list[str]:
        with closing(sqlite3.connect(file)) as connection:
            return [str(row[0]) for row in connection.execute("SELECT result FROM kv_records")]

    with make_sqlite_adapter(options) as adapter:
        adapter.set("n", "k", {"a": _VALUE})
        adapter.append("n", "l", [_VALUE])
        adapter.merge("n", "m", {"a": _VALUE})
        assert not [record for record in records() if _VALUE in record]
        adapter.get_and_delete("n", "k")
        adapter.clear("n")
        assert [record for record in records() if _VALUE in record] == [f'{{"value":{{"a":"{_VALUE}"}}}}']
        wait_until(lambda: adapter.prune_operations().deleted_rows or not records(), what="the prune")
        wait_until(lambda: bool(adapter.prune_operations()) and not records(), what="the end of all records")


def test_values_are_readable_in_the_database_and_in_the_queue(valkey_url: str, client: Redis, tmp_path: Path) -> None:
    with make_sqlite_adapter({"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True}) as adapter:
        adapter.set("n", "k", _VALUE)
    assert _VALUE.encode() in (tmp_path / "kv.sqlite").read_bytes()
    with KeyValueStore(Settings.from_mapping({"queue": {"broker_url": valkey_url}})) as store:
        store.submit("kv_set", {"namespace": "n", "key": "k", "value": _VALUE}, timeout=60)
        wait_until(lambda: client.llen("kv"), what="the message in the queue")
        (item,) = client.lrange("kv", 0, -1)
    assert _VALUE in b64decode(json.loads(item)["body"]).decode()


def test_the_broker_itself_bounds_what_anyone_can_push(client: Redis) -> None:
    client.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        with pytest.raises(RedisError):
            client.lpush("kv", b"x" * 1_100_000)
    finally:
        client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)
