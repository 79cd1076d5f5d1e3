"""LangGraph's checkpointer through a real queue: its conformance suite, and the example."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate

from kvworker import AsyncKeyValueStore, KeyValueStore, Settings
from kvworker.integrations.langgraph import KvworkerSaver
from tests.support.processes import WorkerNode


def test_the_published_conformance_suite_passes(settings: Settings, worker_node: WorkerNode) -> None:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        async with AsyncKeyValueStore(settings) as store:
            yield KvworkerSaver(store, timeout=60)

    report = asyncio.run(validate(RegisteredCheckpointer("kvworker", factory)))
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert report.passed_all()


def test_the_example_goes_on_in_another_process(
    kv_environ: Mapping[str, str], store: KeyValueStore, worker_node: WorkerNode
) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "examples.approval", *arguments]
        environ = {**os.environ, **kv_environ, "LANGSMITH_TRACING": "false"}
        return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=True).stdout

    assert run("ask", "refund-17", "4200") == "Send this? We refund 42.00 euros.\n"
    assert run("answer", "refund-17", "yes") == "sent\n"
    entries = store.list_keys("checkpoints:refund-17").entries
    assert entries
    assert all(entry.ttl_seconds and entry.ttl_seconds > 3 * 86_400 - 600 for entry in entries)
