"""Processes that die in the middle of a chord: it ends, each part is applied once, and no result is lost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from celery import chord

from kvworker import KeyValueStore
from tests.support.processes import ProcessNode, wait_until


@pytest.mark.parametrize("point", ["before counting", "before the body"])
def test_a_chord_ends_when_a_pool_process_is_killed(
    point: str, tmp_path: Path, kv_environ: Mapping[str, str], store: KeyValueStore
) -> None:
    died = tmp_path / "died"
    command = [sys.executable, "-m", "celery", "-A", "tests.support.dying_chord_app", "worker", "-c", "1", "-l", "INFO"]
    node = ProcessNode("worker", command, directory=tmp_path, environ={**kv_environ, "DIES": point, "DIED": str(died)})
    node.start()
    try:
        wait_until(lambda: "ready." in node.logs(), what="the worker's start")
        parts = [store.signature("kv_increment", {"namespace": "n", "key": "c"}) for _ in range(5)]
        body = store.signature("kv_set", {"namespace": "n", "key": "all"})
        stored = chord(parts, body).apply_async().get(timeout=60)
        assert died.exists()
        assert sorted(part["value"] for part in stored["value"]) == [1, 2, 3, 4, 5]
        assert store.get("n", "c").value == 5
        assert store.get("n", "all").value == stored["value"]
    finally:
        node.teardown()
