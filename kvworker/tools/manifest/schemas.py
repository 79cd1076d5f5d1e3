"""A tool's arguments and its result as JSON Schema (Draft 2020-12)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvworker.tools import STEP_TOOLS, Parameter, ResultField, Tool, step_parameters

#: How an operation that was refused on its own, in a batch that is not atomic, shows in the batch's result.
_STEP_ERROR = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "The error's name."},
        "args": {"type": "array", "description": "What the error is rebuilt from."},
        "message": {"type": "string", "description": "What happened, and what to do."},
    },
    "required": ["type", "args", "message"],
}


def input_schema(tool: Tool) -> dict[str, Any]:
    """What ``check_arguments`` takes: every call that it accepts is valid here.

    Not the other way round: lengths in bytes, and arguments that contradict each other, only the check sees.
    """
    return _arguments(tool.parameters)


def output_schema(tool: Tool) -> dict[str, Any]:
    """The tool's result as a dict. A newer worker may say more, so other properties are allowed."""
    return _result(tool.result_fields)


def step_name(tool: Tool) -> dict[str, Any]:
    """The schema of the property that tells which tool an operation of a batch is."""
    return {"type": "string", "enum": [tool.name]}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with null allowed, as for an optional argument: null is the same as leaving it out."""
    return {**schema, "type": [schema["type"], "null"]}


def _arguments(parameters: Sequence[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    required = [*first, *(parameter.name for parameter in parameters if parameter.required)]
    return {
        "type": "object",
        "properties": {**first, **{parameter.name: _argument(parameter) for parameter in parameters}},
        "required": required,
        "additionalProperties": False,
    }


def _argument(parameter: Parameter) -> dict[str, Any]:
    schema = dict(parameter.schema) if parameter.required else nullable(parameter.schema)
    if parameter.name == "operations":
        schema["items"] = {"anyOf": [_arguments(step_parameters(tool), tool=step_name(tool)) for tool in STEP_TOOLS]}
    return {**schema, "description": parameter.description}


def _result(fields: Iterable[ResultField], **first: dict[str, Any]) -> dict[str, Any]:
    fields = tuple(fields)
    return {
        "type": "object",
        "properties": {**first, **{field.name: _field(field) for field in fields}},
        "required": [*first, *(field.name for field in fields if field.always)],
    }


def _field(field: ResultField) -> dict[str, Any]:
    schema = dict(field.schema)
    if field.name == "results":
        schema["items"] = {
            "anyOf": [*(_result(tool.result_fields, tool=step_name(tool)) for tool in STEP_TOOLS), _refused()]
        }
    return {**schema, "description": field.description}


def _refused() -> dict[str, Any]:
    tool = {"type": "string", "enum": [tool.name for tool in STEP_TOOLS]}
    return {"type": "object", "properties": {"tool": tool, "error": _STEP_ERROR}, "required": ["tool", "error"]}
