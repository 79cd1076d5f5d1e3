"""The examples of agents that keep their state in kvworker. Each call is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from kvworker import KeyValueStore
from tests.support.processes import WorkerNode


def test_agents_go_on_in_another_process(
    kv_environ: Mapping[str, str], store: KeyValueStore, worker_node: WorkerNode
) -> None:
    def run(example: str, *arguments: str) -> str:
        command = [sys.executable, "-m", f"examples.{example}", *arguments]
        environ = {**os.environ, **kv_environ, "LANGSMITH_TRACING": "false"}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("approval", "ask", "refund-17", "4200") == "Send this? We refund 42.00 euros.\n"
    assert run("approval", "answer", "refund-17", "yes") == "sent\n"
    entries = store.list_keys("checkpoints:refund-17").entries
    assert entries
    assert all(entry.ttl_seconds and entry.ttl_seconds > 3 * 86_400 for entry in entries)

    assert run("support_chat", "customer-7", "My parcel is late") == "You wrote: My parcel is late\n"
    assert run("support_chat", "customer-7", "Hello?") == "You wrote: My parcel is late / Hello?\n"

    note = {"command": "create", "path": "/memories/tea.md", "file_text": "without milk"}
    assert run("claude_memory", "run", "user-7", json.dumps(note)) == "File created successfully at: /memories/tea.md\n"
    view = {"command": "view", "path": "/memories/tea.md"}
    assert "1\twithout milk" in run("claude_memory", "run", "user-7", json.dumps(view))
    assert store.get("memory:user-7", "/memories/tea.md").value == "without milk"
