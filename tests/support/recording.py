"""An in-memory store that records the messages that a queue would have carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker import InlineKeyValueStore, Settings
from kvworker.model import OperationResult
from kvworker.tools import Tool


class RecordingStore(InlineKeyValueStore):
    """An in-memory store that records the tool and the arguments of every call."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.messages: list[tuple[str, Mapping[str, Any]]] = []

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        self.messages.append((tool.name, arguments))
        return super().call_tool(tool, arguments, timeout)


def with_quota(quota_bytes: int) -> RecordingStore:
    """Make a store with a quota for each namespace."""
    adapters = {"sqlite": {"url": "sqlite://", "namespace_quota_bytes": quota_bytes}}
    settings = Settings.from_mapping({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}})
    return RecordingStore(settings)
