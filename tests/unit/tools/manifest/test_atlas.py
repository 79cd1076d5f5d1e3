"""The manifest in ATLAS: its loader takes every entry, and its gate enforces the flags.

The facts come from ATLAS' repository, DigitalHallucinations/ATLAS at f22472e: the schema of its manifest
(``modules/Tools/tool_maps/schema.json``) and its gate (``core/tools/execution.py``, ``modules/Personas/utils.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from jsonschema import Draft7Validator

from kvworker import Settings
from kvworker.tools import ACCESS_FLAG, ADMIN_FLAG, TOOLS, WRITE_FLAG
from kvworker.tools.manifest import manifest_entries

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT}
SIDE_EFFECTS = ("none", "write", "network", "read_external_service", "filesystem", "compute", "system", "database")
ENTRY = {
    "type": "object",
    "required": [
        *("name", "description", "parameters", "version", "side_effects", "default_timeout"),
        *("auth", "allow_parallel", "idempotency_key"),
    ],
    "properties": {
        **dict.fromkeys(("name", "description", "version"), TEXT),
        "parameters": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"enum": ["object"]},
                "properties": {"type": "object"},
                "required": TEXTS,
                "additionalProperties": {"type": ["boolean", "object"]},
            },
        },
        "side_effects": {"enum": list(SIDE_EFFECTS)},
        "default_timeout": {"type": "integer", "minimum": 0},
        "auth": {"type": "object", "required": ["required"], "properties": {"required": {"type": "boolean"}}},
        "allow_parallel": {"type": "boolean"},
        "idempotency_key": {"type": ["boolean", "object"], "required": ["required"]},
        "providers": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": TEXT}}},
    },
}


def gate_allows(entry: Mapping[str, Any], flags: set[str]) -> bool:
    """Decide as ATLAS does on a call without an ``operation``: only missing flags of read and execute refuse it."""
    required = entry["requires_flags"]
    if not isinstance(required, Mapping):
        return True
    return not any(set(required.get(operation, ())) - flags for operation in ("read", "execute"))


@pytest.mark.parametrize("timeout_seconds", [0.5, 2, 7.5, 30.0])
def test_atlas_takes_every_entry(timeout_seconds: float) -> None:
    entries = manifest_entries(Settings.from_mapping({"facade": {"timeout_seconds": timeout_seconds}}))
    assert [entry["name"] for entry in entries] == list(TOOLS)
    for entry in entries:
        Draft7Validator(ENTRY).validate(entry)
        assert type(entry["default_timeout"]) is int
        # A host that gives up first would leave a call behind whose outcome it does not learn.
        assert entry["default_timeout"] >= timeout_seconds


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (set(), set(TOOLS)),
        ({WRITE_FLAG, ADMIN_FLAG}, set(TOOLS)),
        ({ACCESS_FLAG}, {name for name, tool in TOOLS.items() if tool.writes}),
        ({ACCESS_FLAG, WRITE_FLAG}, {"kv_set_quota"}),
        ({ACCESS_FLAG, WRITE_FLAG, ADMIN_FLAG}, set()),
    ],
)
def test_atlas_refuses_the_tools_whose_flags_a_persona_lacks(flags: set[str], refused: set[str]) -> None:
    entries = manifest_entries(Settings())
    assert {entry["name"] for entry in entries if not gate_allows(entry, flags)} == refused


def test_atlas_knows_a_write_by_its_side_effects() -> None:
    entries = {entry["name"]: entry for entry in manifest_entries(Settings())}
    assert {name for name, entry in entries.items() if entry["side_effects"] == "write"} == {
        name for name, tool in TOOLS.items() if tool.writes
    }
