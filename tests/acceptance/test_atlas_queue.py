"""Moving over from ATLAS with a running worker: its log names the decisions, and a command copies the entries."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from kvworker import KeyValueStore
from tests.support.command_line import kvworker
from tests.support.processes import WorkerNode, running

_CHOICE = "ATLAS_KV_REUSE_CONVERSATION is ignored, since tools.kv_store.adapters.postgres.url names a database"


def test_a_worker_logs_once_what_atlas_would_choose_otherwise(tmp_path: Path, kv_environ: Mapping[str, str]) -> None:
    environ = {**kv_environ, "ATLAS_KV_REUSE_CONVERSATION": "true"}
    with running(WorkerNode(tmp_path, environ, ["--concurrency=2"])) as worker:
        assert worker.logs().count(_CHOICE) == 1


def test_the_entries_of_atlas_are_copied_through_the_queue(
    worker_node: WorkerNode, kv_config: Path, tmp_path: Path, store: KeyValueStore
) -> None:
    file = tmp_path / "atlas.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "CREATE TABLE kv_entries (namespace TEXT, key TEXT, value JSON, expires_at FLOAT, size_bytes INTEGER)"
        )
        rows = [("atlas", f"key {number}", f"[{number}]", time.time() + 600, 3) for number in range(300)]
        connection.executemany("INSERT INTO kv_entries VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    command = ("import", "--from-atlas", f"sqlite:///{file}", "--config", str(kv_config))
    done = kvworker(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "applied 300, replayed 0, failed 0\n"), done.stderr
    entry = store.get("atlas", "key 7")
    assert entry.value == [7]
    assert 0 < (entry.ttl_seconds or 0) <= 600
    again = kvworker(*command, cwd=tmp_path)
    assert again.stdout == "applied 0, replayed 0, failed 0\n"
    assert "300 entries existed already" in again.stderr


def test_either_a_file_or_atlas(tmp_path: Path) -> None:
    done = kvworker("import", cwd=tmp_path)
    assert done.returncode == 2
    assert "either FILE or --from-atlas URL" in done.stderr
