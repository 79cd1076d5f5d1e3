"""The schemas of OpenAI's strict mode.

The rules come from "Structured Outputs: Supported schemas" (platform.openai.com/docs/guides/structured-outputs):

- The root is an object without ``anyOf``.
- Every object has ``additionalProperties: false`` and lists all its properties in ``required``. An optional property
  is therefore a union with null.
- The first property of the objects of an ``anyOf`` tells them apart.
- A schema has at most 10 levels, 5000 properties and 120 000 characters of names.
- ``allOf``, ``not``, ``if`` and the like are not supported.

Fine-tuned models and other hosts of the interface refuse bounds (``minimum``, ``maxItems`` …) and lengths, so the
descriptions state them in words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from kvworker.tools import STEP_TOOLS, Parameter, Tool, step_parameters
from kvworker.tools.manifest.schemas import tool_name_schema
from kvworker.tools.manifest.text_values import bounds_in_words, text_name, text_schema


def strict_schema(tool: Tool) -> dict[str, Any]:
    """Return the strict schema of a tool's arguments. Convert a call's arguments with ``arguments_from_strict``."""
    return _object_schema(tool.parameters)


def _object_schema(parameters: Sequence[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    properties = {**first, **{text_name(parameter): _argument_schema(parameter) for parameter in parameters}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _argument_schema(parameter: Parameter) -> dict[str, Any]:
    if parameter.holds_values:
        return text_schema(parameter)
    kind = parameter.schema["type"]
    schema = {
        "type": kind if parameter.required else [kind, "null"],
        "description": " ".join([parameter.description, *bounds_in_words(parameter), *_null_in_words(parameter)]),
    }
    if parameter.name == "operations":
        schema["items"] = {
            "anyOf": [_object_schema(step_parameters(tool), tool=tool_name_schema(tool)) for tool in STEP_TOOLS]
        }
    return schema


def _null_in_words(parameter: Parameter) -> Iterator[str]:
    if "default" in parameter.schema:
        yield f"null means {json.dumps(parameter.schema['default'])}."
    elif not parameter.required:
        yield "null leaves it out."
