"""The base of the facade's methods: each turns its arguments into the call of a tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from kvworker.model import OperationResult
from kvworker.tools import Tool, find_tool


class ToolCalls(ABC):
    """Leaves the call of a tool to ``call_tool``."""

    @abstractmethod
    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result.

        Args:
            tool: The tool to run.
            arguments: Its arguments, not checked yet.
            timeout: Bound of the whole call in seconds. None means the configured default.
        """

    def _call(self, tool: str, timeout: float | None, **arguments: Any) -> OperationResult:
        return self.call_tool(find_tool(tool), arguments, timeout)
