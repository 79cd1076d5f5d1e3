"""``kvworker worker`` beside a user's own modules with the names of ours."""

from __future__ import annotations

import sys
from pathlib import Path

from kvworker import KeyValueStore
from tests.support.processes import ProcessNode, wait_until


def test_a_worker_starts_in_a_folder_with_a_users_own_modules(
    store: KeyValueStore, kv_config: Path, kv_environ: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "users"
    folder.mkdir()
    for name in ("tasks.py", "beat_schedule.py", "kvworker.py"):
        (folder / name).write_text("raise SystemExit('a module of the user was imported')")
    command = [
        sys.executable,
        "-P",
        "-m",
        "kvworker",
        "worker",
        "--config",
        str(kv_config),
        "--",
        "-c",
        "1",
        "-l",
        "INFO",
    ]
    worker = ProcessNode("worker", command, directory=folder, environ=kv_environ)
    worker.start()
    try:
        wait_until(lambda: "ready." in worker.logs() or worker.status == "exited", what="the worker's start")
        assert store.set("n", "k", 1, timeout=20).value == 1
        assert "kvworker.kv_set" in worker.logs()
    finally:
        worker.teardown()
