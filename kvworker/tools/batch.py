"""The operations of a batch. Each is an object with its ``tool`` and the tool's arguments, except the batch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvworker.errors import InvalidRequestError
from kvworker.model import MAX_BATCH_STEPS, Step, shown_name
from kvworker.model import make_step as make_step_of_action
from kvworker.tools.arguments import check_parameters
from kvworker.tools.definition import Parameter, Tool

#: Arguments that the batch gives once for all its operations.
_COMMON = frozenset({"namespace", "idempotency_key"})


def step_parameters(tool: Tool) -> tuple[Parameter, ...]:
    """Return the parameters of a tool as an operation of a batch."""
    return tuple(parameter for parameter in tool.parameters if parameter.name not in _COMMON)


class OperationsCheck:
    """Checks the operations of a batch. An error names the operation by its index."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __call__(self, operations: object) -> list[dict[str, Any]]:
        """Return the checked operations. Each value to store is an ``EncodedValue``.

        Raises:
            InvalidRequestError: There are not 1 to 1000 operations, or one of them is wrong.
        """
        if not isinstance(operations, list | tuple):
            raise InvalidRequestError(f"operations must be a list, not a {type(operations).__name__}")
        if not 1 <= len(operations) <= MAX_BATCH_STEPS:
            raise InvalidRequestError(f"a batch has 1 to {MAX_BATCH_STEPS} operations, not {len(operations)}")
        return [self._check_at(index, operation) for index, operation in enumerate(operations)]

    def _check_at(self, index: int, operation: object) -> dict[str, Any]:
        try:
            return self._check_operation(operation)
        except InvalidRequestError as error:
            raise type(error)(f"operations[{index}]: {error}") from None

    def _check_operation(self, operation: object) -> dict[str, Any]:
        if not isinstance(operation, Mapping):
            raise InvalidRequestError(f"it must be an object, not a {type(operation).__name__}")
        arguments = dict(operation)
        tool = self._find(arguments.pop("tool", None))
        allowed = tuple(parameter.name for parameter in step_parameters(tool))
        return {"tool": tool.name, **check_parameters(tool, arguments, allowed)}

    def _find(self, name: object) -> Tool:
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            raise InvalidRequestError(f"its tool must be one of {', '.join(self._tools)}, not {shown_name(name)}")
        return tool


def make_step(tool: str, arguments: Mapping[str, Any]) -> Step:
    """Build an adapter's step.

    Args:
        tool: The name of one of the ``STEP_TOOLS``.
        arguments: The tool's checked arguments, without namespace and idempotency key.
    """
    return make_step_of_action(tool.removeprefix("kv_"), arguments)


def make_steps(operations: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Build an adapter's steps from the checked operations of a batch."""
    return tuple(_make_step_of(operation) for operation in operations)


def _make_step_of(operation: Mapping[str, Any]) -> Step:
    arguments = dict(operation)
    return make_step(arguments.pop("tool"), arguments)
