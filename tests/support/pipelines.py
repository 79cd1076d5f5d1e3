"""An inline store for tests of pipelines, which records every message."""

from __future__ import annotations

from typing import Any

from kvworker import (
    InlineKeyValueStore,
    Settings,
)

MIB = 1024 * 1024


def settings_of(**blocks: Any) -> Settings:
    sqlite = {"url": "sqlite://", "namespace_quota_bytes": 20 * MIB}
    tools = {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": sqlite}}}
    # No server listens there.
    return Settings.from_mapping({"tools": tools, "queue": {"broker_url": "redis://127.0.0.1:1/0"}, **blocks})


class CountingStore(InlineKeyValueStore):
    """An inline store that records every message."""

    def __init__(self, settings: Settings | None = None, persona: str | None = None) -> None:
        super().__init__(settings or settings_of(), persona)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def submit(self, tool: str, arguments: Any, *, timeout: float | None = None) -> Any:
        self.sent.append((tool, dict(arguments)))
        return super().submit(tool, arguments, timeout=timeout)

    @property
    def shapes(self) -> list[tuple[str, str, int]]:
        """The tool, the namespace and the number of operations of each message."""
        return [(tool, args["namespace"], len(args.get("operations", "1"))) for tool, args in self.sent]
