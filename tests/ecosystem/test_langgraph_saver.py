"""LangGraph's contract of checkpointers: all of ``langgraph-checkpoint-conformance``, over each facade."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate

from kvworker import InlineKeyValueStore
from kvworker.integrations.langgraph import KvworkerSaver


async def _inline() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
    with InlineKeyValueStore() as store:
        yield KvworkerSaver(store)


async def _inline_with_ttl() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
    with InlineKeyValueStore() as store:
        yield KvworkerSaver(store, ttl_seconds=600)


@pytest.mark.parametrize("factory", [_inline, _inline_with_ttl])
def test_the_published_conformance_suite_passes(factory: Any) -> None:
    report = asyncio.run(validate(RegisteredCheckpointer("kvworker", factory)))
    assert [name for name, result in report.results.items() if not result.detected] == []
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert report.passed_all()
    assert sum(result.tests_passed for result in report.results.values()) >= 81
