"""The facade's methods as the calls that they would make: one definition of their arguments for all who make calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, cast

from celery.canvas import Signature

from kvworker.client.base import KeyValueOperations
from kvworker.tools import Tool

_Arguments = ParamSpec("_Arguments")


class Call(NamedTuple):
    """A tool, its arguments as they were given, and the timeout."""

    tool: Tool
    arguments: Mapping[str, Any]
    timeout: float | None


class _CallRecorder(KeyValueOperations):
    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> Any:
        return Call(tool, arguments, timeout)

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> Any:
        raise NotImplementedError

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        raise NotImplementedError

    def check_may_wait(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is open."""


_recorder = _CallRecorder()


def call_of(
    method: Callable[Concatenate[KeyValueOperations, _Arguments], object],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> Call:
    """The call that a method of the facade makes."""
    return cast(Call, method(_recorder, *args, **kwargs))
