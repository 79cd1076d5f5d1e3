"""Checks a call's arguments against a tool's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvworker.errors import InvalidRequestError
from kvworker.model import shown_name
from kvworker.tools.definition import Parameter, Tool

#: Pairs of arguments of which a call may give only one.
_EXCLUSIVE: Final = (("if_absent", "expected_version"), ("keep_ttl", "ttl_seconds"))

#: Above this, a float may stand for several integers.
_MAX_EXACT_FLOAT: Final = 2**53


def check_arguments(
    tool: Tool, arguments: Mapping[str, Any], *, missing_allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check the arguments of a call. Leave out optional arguments that are null or equal their default.

    Args:
        tool: The tool that is called.
        arguments: The arguments, by parameter name.
        missing_allowed: Required arguments that may be missing for now.

    Returns:
        The checked arguments. A value to store is an ``EncodedValue``.

    Raises:
        InvalidRequestError: An argument is missing, unknown or wrong.
    """
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    return check_parameters(tool, arguments, tool.required + tool.optional, missing_allowed)


def check_parameters(
    tool: Tool, arguments: Mapping[str, Any], allowed: tuple[str, ...], missing_allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check arguments like ``check_arguments``, for a call that may give only the allowed ones.

    Raises:
        InvalidRequestError: An argument is missing, unknown or wrong, or two of them contradict each other.
    """
    _refuse_unknown(tool, arguments, allowed)
    given = {name: value for name, value in arguments.items() if value is not None or name in tool.required}
    _refuse_missing(tool, given, set(allowed).difference(missing_allowed))
    checked = {}
    for parameter in tool.parameters:
        if parameter.name in given:
            value = given[parameter.name]
            if type(value) is float:
                value = _integral(parameter, value)
            if not parameter.is_default(value):
                checked[parameter.name] = parameter.check(value)
    _refuse_contradictions(checked)
    return checked


def _integral(parameter: Parameter, number: float) -> float:
    """Return a float without a fraction as the integer that is wanted: Gemini, for example, sends no other numbers."""
    is_exact = number.is_integer() and abs(number) <= _MAX_EXACT_FLOAT
    return int(number) if is_exact and parameter.schema.get("type") == "integer" else number


def _refuse_missing(tool: Tool, given: Mapping[str, Any], needed: set[str]) -> None:
    for name in tool.required:
        if name in needed and name not in given:
            raise InvalidRequestError(f"{tool.name} needs the argument {name!r}")


def _refuse_unknown(tool: Tool, arguments: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in arguments:
        if name not in allowed:
            raise InvalidRequestError(
                f"{tool.name} takes no argument {shown_name(name)}; its arguments are {', '.join(allowed)}"
            )


def _refuse_contradictions(arguments: Mapping[str, Any]) -> None:
    for flag, other in _EXCLUSIVE:
        if arguments.get(flag) and arguments.get(other) is not None:
            raise InvalidRequestError(f"{flag} and {other} contradict each other; give only one of them")
