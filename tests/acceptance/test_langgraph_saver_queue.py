"""LangGraph's checkpointer through a real queue: its conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate

from kvworker import AsyncKeyValueStore, Settings
from kvworker.integrations.langgraph import KvworkerSaver
from tests.support.processes import WorkerNode


def test_the_published_conformance_suite_passes(settings: Settings, worker_node: WorkerNode) -> None:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        async with AsyncKeyValueStore(settings) as store:
            yield KvworkerSaver(store, timeout=60)

    report = asyncio.run(validate(RegisteredCheckpointer("kvworker", factory)))
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert report.passed_all()
