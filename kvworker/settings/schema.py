"""JSON Schemas of the configuration file and of a personas file, generated from the settings' models."""

from __future__ import annotations

import json
from typing import Any, Final

from kvworker.settings.base import MAY_BE_BLANK, Block
from kvworker.settings.personas import PersonasBlock
from kvworker.settings.root import Settings

SCHEMA_NAME: Final = "kvworker.schema.json"
PERSONAS_SCHEMA_NAME: Final = "personas.schema.json"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BLANK = {
    "description": "A blank value counts as omitted.",
    "anyOf": [{"type": "null"}, {"type": "string", "pattern": r"^\s*$"}],
}
_BLANK_REF = {"$ref": "#/$defs/Blank"}

_Schema = dict[str, Any]


def configuration_schema() -> _Schema:
    """Generate the schema of the configuration file."""
    description = "The configuration file of kvworker. A host program's own keys may stand beside these."
    return {
        **_schema(Settings, "kvworker configuration"),
        "description": description,
        "additionalProperties": True,
    }


def personas_schema() -> _Schema:
    """Generate the schema of a personas file."""
    return _schema(PersonasBlock, "kvworker personas")


def schema_text(schema: _Schema) -> str:
    """Return the text of a schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _schema(model: type[Block], title: str) -> _Schema:
    generated = model.model_json_schema()
    blocks = {name: _block(definition) for name, definition in generated.pop("$defs").items()}
    return {**_block(generated), "$schema": _DIALECT, "title": title, "$defs": {**blocks, "Blank": _BLANK}}


def _block(definition: _Schema) -> _Schema:
    """Allow a blank for each key that may be omitted."""
    required = definition.get("required", ())
    properties = {
        name: _property(schema, may_be_blank=name not in required)
        for name, schema in definition.get("properties", {}).items()
    }
    return _with_blank_values({**definition, "properties": properties})


def _property(schema: _Schema, *, may_be_blank: bool) -> _Schema:
    kept: _Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    if isinstance(kept.get("default", {}), dict | None) or kept["default"] == "":
        # The defaults of a block are those of its keys. Null and the empty string mean that the default is not fixed.
        kept.pop("default", None)
    constraints = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
    may_be_blank = constraints.pop(MAY_BE_BLANK, may_be_blank)
    choices = constraints.pop("anyOf", None) or [constraints]
    choices = [_with_blank_values(choice) for choice in choices if choice != {"type": "null"}]
    return {**kept, "anyOf": [*choices, _BLANK_REF] if may_be_blank else choices}


def _with_blank_values(schema: _Schema) -> _Schema:
    """Allow a blank for each block in a mapping by name, but not for the name."""
    if "patternProperties" in schema:
        values = {pattern: _or_blank(value) for pattern, value in schema["patternProperties"].items()}
        return {**schema, "patternProperties": values, "additionalProperties": False}
    if isinstance(schema.get("additionalProperties"), dict):
        return {**schema, "additionalProperties": _or_blank(schema["additionalProperties"])}
    return schema


def _or_blank(values: _Schema) -> _Schema:
    is_block = "$ref" in values or values.get("type") == "object"
    return {"anyOf": [values, _BLANK_REF]} if is_block else values
