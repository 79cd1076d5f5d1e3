"""The commands beyond get and set, through the queue of a running worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvworker.cli import main
from tests.support.command_line import kvworker
from tests.support.processes import WorkerNode

_BATCH = """
{"tool": "kv_set", "key": "b1", "value": [1], "ttl_seconds": 60}
{"tool": "kv_set", "key": "b1", "value": [2], "if_absent": true}
{"tool": "kv_get", "key": "b1"}
"""


def test_the_commands_through_a_worker(
    worker_node: WorkerNode,
    kv_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KVWORKER_CONFIG", str(kv_config))

    def run(*arguments: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as exit_info:
            main([*arguments, "--json"])
        captured = capsys.readouterr()
        assert exit_info.value.code == code, captured
        return json.loads(captured.out) if code == 0 else captured.err

    version = run("set", "n", "k1", "1", "--if-absent", "--ttl", "600")["version"]
    assert "the entry exists" in run("set", "n", "k1", "2", "--if-absent", code=1)
    assert "ttl_seconds" in run("set", "n", "k1", "2", "--keep-ttl", "--expected-version", str(version))
    assert "at the expected version" in run("delete", "n", "k1", "--expected-version", str(version), code=1)
    assert "ttl_seconds" not in run("persist", "n", "k1")
    assert run("touch", "n", "k1", "60")["ttl_seconds"] == 60

    # Run one of them as a process, as a user does.
    batch = ("batch", "n", "-", "--not-atomic", "--config", str(kv_config))
    done = kvworker(*batch, cwd=tmp_path, stdin=_BATCH)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "3 operations, 1 refused")
    assert done.stderr.startswith("operations[1] kv_set b1: the entry exists")
    assert done.stderr.count("\n") == 1

    page = run("list", "n", "--values", "--limit", "1")
    assert [(entry["key"], entry["value"]) for entry in page["entries"]] == [("b1", [1])]
    rest = run("list", "n", "--all", "--prefix", "k", "--cursor", page["next_cursor"])
    assert [entry["key"] for entry in rest["entries"]] == ["k1"]
    assert run("quota", "n", "1KiB")["quota_bytes"] == 1024
    assert run("list", "--prefix", "n")["namespaces"][0]["quota_bytes"] == 1024
    assert run("quota", "n", "--reset")["quota_bytes"] is None
    assert run("usage", "n")["entry_count"] == run("usage")["entry_count"] == 2
    assert run("clear", "n", "--yes")["deleted_entries"] == 2
    assert run("list")["namespaces"] == []
