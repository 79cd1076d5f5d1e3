"""Checking a call's arguments against a tool's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker.errors import InvalidRequestError
from kvworker.model import shown_name
from kvworker.tools.definition import Tool


def check_arguments(
    tool: Tool, arguments: Mapping[str, Any], *, missing_allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The arguments of a call, checked. An optional one that is null, or its default, counts as left out.

    Raises:
        InvalidRequestError: an argument is missing, unknown or wrong.
    """
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    return check_parameters(tool, arguments, tool.required + tool.optional, missing_allowed)


def check_parameters(
    tool: Tool, arguments: Mapping[str, Any], allowed: tuple[str, ...], missing_allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The arguments among those allowed, checked.

    Raises:
        InvalidRequestError: an argument is missing, unknown or wrong, or two of them contradict each other.
    """
    if unknown := [name for name in arguments if name not in allowed]:
        raise InvalidRequestError(
            f"{tool.name} takes no argument {shown_name(unknown[0])}; it takes {', '.join(allowed)}"
        )
    given = {name: value for name, value in arguments.items() if value is not None or name in tool.required}
    missing = [name for name in tool.required if name in allowed and name not in given and name not in missing_allowed]
    if missing:
        raise InvalidRequestError(f"{tool.name} needs the argument {missing[0]!r}")
    parameters = [one for one in tool.parameters if one.name in given and not one.is_default(given[one.name])]
    checked = {one.name: one.check(given[one.name]) for one in parameters}
    _check_together(checked)
    return checked


def _check_together(arguments: Mapping[str, Any]) -> None:
    for one, other in (("if_absent", "expected_version"), ("keep_ttl", "ttl_seconds")):
        if arguments.get(one) and arguments.get(other) is not None:
            raise InvalidRequestError(f"{one} and {other} contradict each other; give one of them")
