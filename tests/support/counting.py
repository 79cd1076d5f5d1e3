"""An in-memory store that counts the messages that a queue would have carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.store.base import Op

from kvworker import InlineKeyValueStore, Settings
from kvworker.inline import InlineResult
from kvworker.integrations.langgraph import KvworkerStore


class CountingStore(InlineKeyValueStore):
    """An in-memory store that records the tool of each message."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.sent: list[str] = []

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> InlineResult:
        self.sent.append(tool)
        return super().submit(tool, arguments, timeout=timeout)

    def sent_by(self, store: KvworkerStore, *ops: Op) -> list[str]:
        """Run one batch and return the tools of its messages."""
        self.sent.clear()
        store.batch(ops)
        return self.sent
