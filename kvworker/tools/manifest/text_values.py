"""Arguments that hold any JSON value, passed as JSON text in a string named ``<name>_json``.

Many clients and models go by an argument's ``type``. Without one, they send the number 8 as the text "8", and some
formats cannot express "any JSON value" at all. A string that holds JSON means the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kvworker.errors import InvalidRequestError
from kvworker.tools import STEP_TOOLS, Parameter, find_tool, step_parameters

_AS_TEXT: Final = "_json"
_HOW_AS_TEXT: Final = 'Pass it as JSON text, with quotes around a string: "text".'
_STEP_PARAMETERS: Final = {tool.name: step_parameters(tool) for tool in STEP_TOOLS}


def text_name(parameter: Parameter) -> str:
    """Return the parameter's name in the formats that pass any JSON value as text."""
    return parameter.name + _AS_TEXT if parameter.holds_values else parameter.name


def text_schema(parameter: Parameter) -> dict[str, Any]:
    """Return the schema of a parameter that is passed as JSON text."""
    return {"type": "string", "description": f"{parameter.description} {_HOW_AS_TEXT}"}


def bounds_in_words(parameter: Parameter) -> Iterator[str]:
    """Yield the bounds that some formats may not hold, except those that the description already states."""
    schema = parameter.schema
    if "minimum" in schema:
        yield f"From {schema['minimum']} to {schema['maximum']}."
    if "exclusiveMinimum" in schema:
        yield f"Above {schema['exclusiveMinimum']}."
    if "minItems" in schema:
        yield f"{schema['minItems']} to {schema['maxItems']} of them."
    if "maxLength" in schema and str(schema["maxLength"]) not in parameter.description:
        yield f"At most {schema['maxLength']} bytes of UTF-8."


_STEP_NAMES: Final = {text_name(parameter) for parameters in _STEP_PARAMETERS.values() for parameter in parameters}


def arguments_from_strict(tool_name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the arguments of a call in OpenAI's strict mode to the tool's own. It does not check them.

    Calls by the schemas for Gemini, MCP and LangChain are converted in the same way. Arguments that are the tool's own
    already stay as they are.

    Raises:
        InvalidRequestError: The tool is unknown, the arguments are not an object, or a text is not JSON.
    """
    tool = find_tool(tool_name)
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    plain = _from_text(tool.parameters, arguments)
    if isinstance(operations := plain.get("operations"), list):
        plain["operations"] = [_step_from_text(index, operation) for index, operation in enumerate(operations)]
    return plain


def _from_text(parameters: Sequence[Parameter], arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(arguments)
    for parameter in parameters:
        name = text_name(parameter)
        if name not in plain:
            continue
        if name != parameter.name:
            if parameter.name in plain:
                raise InvalidRequestError(f"{name} and {parameter.name} contradict each other; give only {name}")
            plain[parameter.name] = _parse_json(name, plain.pop(name))
        elif plain[name] is None and not parameter.required:
            del plain[name]
    return plain


def _step_from_text(index: int, operation: object) -> object:
    """Convert an operation of a batch. Leave a malformed one to the check."""
    tool = operation.get("tool") if isinstance(operation, Mapping) else None
    if not isinstance(operation, Mapping) or not isinstance(tool, str) or tool not in _STEP_PARAMETERS:
        return operation
    # Gemini's operations have the arguments of all tools, so a model may give those of another tool as null.
    others = _STEP_NAMES - {text_name(parameter) for parameter in _STEP_PARAMETERS[tool]}
    given = {name: value for name, value in operation.items() if value is not None or name not in others}
    try:
        return _from_text(_STEP_PARAMETERS[tool], given)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"operations[{index}]: {error}") from None


def _parse_json(name: str, text: object) -> Any:
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name} must be a string that holds JSON, not a {type(text).__name__}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise InvalidRequestError(f"{name} does not hold JSON: {reason}. {_HOW_AS_TEXT}") from None
