"""Turns a facade method into a call description, so that other facades need not repeat its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, cast

from kvworker.client.methods import FacadeMethods
from kvworker.tools import Tool

_Arguments = ParamSpec("_Arguments")


class Call(NamedTuple):
    """The description of a facade method's call: a tool, its unchecked arguments, and the timeout."""

    tool: Tool
    arguments: Mapping[str, Any]
    timeout: float | None


class _CallDescriber(FacadeMethods):
    """Returns a description of each call instead of running it."""

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> Any:
        """Return the call with its arguments as a tool takes them."""
        return Call(tool, arguments, timeout)


_describer = _CallDescriber()


def describe_call(
    method: Callable[Concatenate[FacadeMethods, _Arguments], object],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> Call:
    """Return the call that a facade method would make with these arguments."""
    return cast(Call, method(_describer, *args, **kwargs))
