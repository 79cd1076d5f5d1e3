"""JSON Schemas (Draft 2020-12) of a tool's arguments and its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvworker.tools import STEP_TOOLS, Parameter, ResultField, Tool, step_parameters
from kvworker.tools.manifest.text_values import text_name, text_schema

#: The error of a refused operation, in the result of a batch that is not atomic.
_STEP_ERROR = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "The name of the error's class."},
        "args": {"type": "array", "description": "The arguments of the error's class."},
        "message": {"type": "string", "description": "The error in words."},
    },
    "required": ["type", "args", "message"],
}


def input_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments.

    Every call that ``check_arguments`` accepts is valid, except that an optional argument may also be null: clients and
    models that go by an argument's type understand one plain type only. Not every valid call is accepted: the schema
    cannot express lengths in bytes or arguments that contradict each other.
    """
    return _arguments_schema(tool.parameters, as_text=False)


def plain_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments where each one has a plain type. Any JSON value is passed as text.

    Convert a call's arguments with ``arguments_from_strict``.
    """
    return _arguments_schema(tool.parameters, as_text=True)


def output_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's result. It allows other properties, which a newer worker may add."""
    return _result_schema(tool.result_fields)


def tool_name_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of the ``tool`` property of an operation in a batch."""
    return {"type": "string", "enum": [tool.name]}


def _arguments_schema(parameters: Sequence[Parameter], *, as_text: bool, **first: dict[str, Any]) -> dict[str, Any]:
    named = {text_name(parameter) if as_text else parameter.name: parameter for parameter in parameters}
    arguments = {name: _argument_schema(parameter, as_text=as_text) for name, parameter in named.items()}
    return {
        "type": "object",
        "properties": {**first, **arguments},
        "required": [*first, *(name for name, parameter in named.items() if parameter.required)],
        "additionalProperties": False,
    }


def _argument_schema(parameter: Parameter, *, as_text: bool) -> dict[str, Any]:
    if as_text and parameter.holds_values:
        return text_schema(parameter)
    schema = dict(parameter.schema)
    description = parameter.description
    if as_text and "exclusiveMinimum" in schema:
        # Hosts that convert the schema for Gemini pass this keyword on, and Gemini refuses it.
        description += f" Above {schema.pop('exclusiveMinimum')}."
    if parameter.name == "operations":
        operations = (
            _arguments_schema(step_parameters(tool), as_text=as_text, tool=tool_name_schema(tool))
            for tool in STEP_TOOLS
        )
        schema["items"] = {"anyOf": list(operations)}
    return {**schema, "description": description}


def _result_schema(fields: Iterable[ResultField], **first: dict[str, Any]) -> dict[str, Any]:
    fields = tuple(fields)
    return {
        "type": "object",
        "properties": {**first, **{field.name: _field_schema(field) for field in fields}},
        "required": [*first, *(field.name for field in fields if field.always)],
    }


def _field_schema(field: ResultField) -> dict[str, Any]:
    schema = dict(field.schema)
    if field.name == "results":
        schema["items"] = {
            "anyOf": [
                *(_result_schema(tool.result_fields, tool=tool_name_schema(tool)) for tool in STEP_TOOLS),
                _refused_operation(),
            ]
        }
    return {**schema, "description": field.description}


def _refused_operation() -> dict[str, Any]:
    tool = {"type": "string", "enum": [tool.name for tool in STEP_TOOLS]}
    return {"type": "object", "properties": {"tool": tool, "error": _STEP_ERROR}, "required": ["tool", "error"]}
