"""The schemas of Gemini's function declarations (``parameters``).

Gemini's ``Schema`` is a subset of OpenAPI 3.0 (ai.google.dev/api/caching#Schema). A property has one plain type.
``additionalProperties`` and ``exclusiveMinimum`` are refused, and some hosts refuse bounds, defaults and ``anyOf`` too.
So the descriptions state bounds in words, and an operation of a batch is one object with the arguments of all its
tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kvworker.tools import STEP_TOOLS, Parameter, Tool, step_parameters
from kvworker.tools.manifest.text_values import bounds_in_words, text_name, text_schema


def gemini_schema(tool: Tool) -> dict[str, Any]:
    """Return the Gemini schema of a tool's arguments. Convert a call's arguments with ``arguments_from_strict``."""
    return _object_schema(tool.parameters)


def _object_schema(parameters: Iterable[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    parameters = tuple(parameters)
    return {
        "type": "object",
        "properties": {**first, **{text_name(parameter): _argument_schema(parameter) for parameter in parameters}},
        "required": [*first, *(text_name(parameter) for parameter in parameters if parameter.required)],
    }


def _argument_schema(parameter: Parameter) -> dict[str, Any]:
    if parameter.holds_values:
        return text_schema(parameter)
    schema = {
        "type": parameter.schema["type"],
        "description": " ".join([parameter.description, *bounds_in_words(parameter), *_default_in_words(parameter)]),
    }
    if parameter.name == "operations":
        schema["items"] = _operation_schema()
    return schema


def _operation_schema() -> dict[str, Any]:
    names = [tool.name for tool in STEP_TOOLS]
    parameters = {parameter.name: parameter for tool in STEP_TOOLS for parameter in step_parameters(tool)}
    schema = _object_schema(parameters.values(), tool={"type": "string", "enum": names})
    return {**schema, "required": ["tool", "key"]}


def _default_in_words(parameter: Parameter) -> Iterator[str]:
    if "default" in parameter.schema:
        yield f"Left out, it is {json.dumps(parameter.schema['default'])}."
