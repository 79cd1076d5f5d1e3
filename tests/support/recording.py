"""A store in memory that remembers the messages which a queue would have carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker import InlineKeyValueStore, Settings
from kvworker.model import OperationResult
from kvworker.tools import Tool


class RecordingStore(InlineKeyValueStore):
    """The store in memory, with the tool and the arguments of every call."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.messages: list[tuple[str, Mapping[str, Any]]] = []

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        self.messages.append((tool.name, arguments))
        return super().call_tool(tool, arguments, timeout)


def with_quota(quota_bytes: int) -> RecordingStore:
    """A store of which every namespace may hold ``quota_bytes``."""
    adapters = {"sqlite": {"url": "sqlite://", "namespace_quota_bytes": quota_bytes}}
    settings = Settings.from_mapping({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}})
    return RecordingStore(settings)
