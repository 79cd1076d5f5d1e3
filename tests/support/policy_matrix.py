"""The rights of personas, written out by hand: personas, calls, and a table of the allowed ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_ACCESS = "type.system.kv_store_access"
_WRITE = "type.system.kv_store_write"
_ADMIN = "type.system.kv_store_admin"
_TEAM: dict[str, list[str]] = {"team.*": ["read", "write"], "shared.*": ["read"]}

#: In the form of a configuration file.
PERSONAS: dict[str, dict[str, Any]] = {
    "reader": {"flags": [_ACCESS, "type.other.browser"]},
    "starred": {"flags": [_ACCESS], "namespaces": {"*": ["read"]}},
    "writer": {"flags": [_ACCESS, _WRITE]},
    "operator": {"flags": [_ACCESS, _WRITE, _ADMIN]},
    "team": {"flags": [_ACCESS, _WRITE], "namespaces": _TEAM},
    "lead": {"flags": [_ACCESS, _WRITE, _ADMIN], "namespaces": _TEAM},
    "listener": {"flags": [_ACCESS], "namespaces": _TEAM},
    "dropbox": {"flags": [_ACCESS, _WRITE], "namespaces": {"team.a": ["write"]}},
    "nowhere": {"flags": [_ACCESS, _WRITE, _ADMIN], "namespaces": {}},
    "half": {"flags": [_WRITE, _ADMIN]},
    "nobody": {"flags": []},
}

_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "get": ("kv_get", {"key": "k"}),
    "set": ("kv_set", {"key": "k", "value": "changed"}),
    "delete": ("kv_delete", {"key": "k"}),
    "increment": ("kv_increment", {"key": "count"}),
    "touch": ("kv_touch", {"key": "k", "ttl_seconds": 900}),
    "persist": ("kv_persist", {"key": "k"}),
    "list_keys": ("kv_list_keys", {}),
    "clear": ("kv_clear", {}),
    "usage": ("kv_usage", {}),
    "set_quota": ("kv_set_quota", {"quota_bytes": 5000}),
    "reads": ("kv_batch", {"operations": [{"tool": "kv_get", "key": "k"}, {"tool": "kv_get", "key": "count"}]}),
    "writes": ("kv_batch", {"operations": [{"tool": "kv_set", "key": "k", "value": "changed"}]}),
    "mixed": (
        "kv_batch",
        {"operations": [{"tool": "kv_get", "key": "k"}, {"tool": "kv_increment", "key": "count"}]},
    ),
    "acquire": ("kv_acquire_permit", {"key": "lease", "holder": "h", "ttl_seconds": 900}),
    "renew": ("kv_renew_permit", {"key": "lease", "holder": "h", "ttl_seconds": 900}),
    "release": ("kv_release_permit", {"key": "lease", "holder": "h"}),
    "rate": ("kv_rate_limit", {"key": "rate", "limit": 1000, "per_seconds": 1}),
    "begin": ("kv_step_begin", {"key": "step"}),
    # If it is allowed, the store refuses it: nobody holds the step with this token.
    "renew_step": ("kv_step_renew", {"key": "step", "token": 7}),
    "finish": ("kv_step_finish", {"key": "no step", "token": 7, "state": "released"}),
    "status": ("kv_step_status", {"key": "step"}),
    "append": ("kv_append", {"key": "events", "items": ["changed"]}),
    "merge": ("kv_merge", {"key": "object", "patch": {"a": "changed"}}),
    "take": ("kv_get_and_delete", {"key": "k"}),
    # These concern the whole store, whatever the namespace of the row.
    "list_all": ("kv_list_namespaces", {}),
    "usage_all": ("kv_usage", {}),
}

_TABLE = """
persona  namespace get set delete increment touch persist list_keys clear usage set_quota reads writes mixed
reader   team.a     +   -    -        -       -      -        +       -     +       -       +     -      -
reader   shared.b   +   -    -        -       -      -        +       -     +       -       +     -      -
reader   other      +   -    -        -       -      -        +       -     +       -       +     -      -
starred  team.a     +   -    -        -       -      -        +       -     +       -       +     -      -
starred  shared.b   +   -    -        -       -      -        +       -     +       -       +     -      -
starred  other      +   -    -        -       -      -        +       -     +       -       +     -      -
writer   team.a     +   +    +        +       +      +        +       +     +       -       +     +      +
writer   shared.b   +   +    +        +       +      +        +       +     +       -       +     +      +
writer   other      +   +    +        +       +      +        +       +     +       -       +     +      +
operator team.a     +   +    +        +       +      +        +       +     +       +       +     +      +
operator shared.b   +   +    +        +       +      +        +       +     +       +       +     +      +
operator other      +   +    +        +       +      +        +       +     +       +       +     +      +
team     team.a     +   +    +        +       +      +        +       +     +       -       +     +      +
team     shared.b   +   -    -        -       -      -        +       -     +       -       +     -      -
team     other      -   -    -        -       -      -        -       -     -       -       -     -      -
lead     team.a     +   +    +        +       +      +        +       +     +       +       +     +      +
lead     shared.b   +   -    -        -       -      -        +       -     +       -       +     -      -
lead     other      -   -    -        -       -      -        -       -     -       -       -     -      -
listener team.a     +   -    -        -       -      -        +       -     +       -       +     -      -
listener shared.b   +   -    -        -       -      -        +       -     +       -       +     -      -
listener other      -   -    -        -       -      -        -       -     -       -       -     -      -
dropbox  team.a     -   +    +        +       +      +        -       +     -       -       -     +      -
dropbox  shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
dropbox  other      -   -    -        -       -      -        -       -     -       -       -     -      -
nowhere  team.a     -   -    -        -       -      -        -       -     -       -       -     -      -
nowhere  shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
nowhere  other      -   -    -        -       -      -        -       -     -       -       -     -      -
half     team.a     -   -    -        -       -      -        -       -     -       -       -     -      -
half     shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
half     other      -   -    -        -       -      -        -       -     -       -       -     -      -
nobody   team.a     -   -    -        -       -      -        -       -     -       -       -     -      -
nobody   shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
nobody   other      -   -    -        -       -      -        -       -     -       -       -     -      -
stranger team.a     -   -    -        -       -      -        -       -     -       -       -     -      -
stranger shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
stranger other      -   -    -        -       -      -        -       -     -       -       -     -      -
none     team.a     -   -    -        -       -      -        -       -     -       -       -     -      -
none     shared.b   -   -    -        -       -      -        -       -     -       -       -     -      -
none     other      -   -    -        -       -      -        -       -     -       -       -     -      -
"""

_TABLE_OF_LIMITS = """
persona  namespace acquire renew release rate
reader   team.a        -      -      -     -
reader   shared.b      -      -      -     -
reader   other         -      -      -     -
starred  team.a        -      -      -     -
starred  shared.b      -      -      -     -
starred  other         -      -      -     -
writer   team.a        +      +      +     +
writer   shared.b      +      +      +     +
writer   other         +      +      +     +
operator team.a        +      +      +     +
operator shared.b      +      +      +     +
operator other         +      +      +     +
team     team.a        +      +      +     +
team     shared.b      -      -      -     -
team     other         -      -      -     -
lead     team.a        +      +      +     +
lead     shared.b      -      -      -     -
lead     other         -      -      -     -
listener team.a        -      -      -     -
listener shared.b      -      -      -     -
listener other         -      -      -     -
dropbox  team.a        +      +      +     +
dropbox  shared.b      -      -      -     -
dropbox  other         -      -      -     -
nowhere  team.a        -      -      -     -
nowhere  shared.b      -      -      -     -
nowhere  other         -      -      -     -
half     team.a        -      -      -     -
half     shared.b      -      -      -     -
half     other         -      -      -     -
nobody   team.a        -      -      -     -
nobody   shared.b      -      -      -     -
nobody   other         -      -      -     -
stranger team.a        -      -      -     -
stranger shared.b      -      -      -     -
stranger other         -      -      -     -
none     team.a        -      -      -     -
none     shared.b      -      -      -     -
none     other         -      -      -     -
"""

_TABLE_OF_DURABLE_STEPS = """
persona  namespace begin renew_step finish status
reader   team.a      -     -     -      +
reader   shared.b    -     -     -      +
reader   other       -     -     -      +
starred  team.a      -     -     -      +
starred  shared.b    -     -     -      +
starred  other       -     -     -      +
writer   team.a      +     +     +      +
writer   shared.b    +     +     +      +
writer   other       +     +     +      +
operator team.a      +     +     +      +
operator shared.b    +     +     +      +
operator other       +     +     +      +
team     team.a      +     +     +      +
team     shared.b    -     -     -      +
team     other       -     -     -      -
lead     team.a      +     +     +      +
lead     shared.b    -     -     -      +
lead     other       -     -     -      -
listener team.a      -     -     -      +
listener shared.b    -     -     -      +
listener other       -     -     -      -
dropbox  team.a      -     +     +      -
dropbox  shared.b    -     -     -      -
dropbox  other       -     -     -      -
nowhere  team.a      -     -     -      -
nowhere  shared.b    -     -     -      -
nowhere  other       -     -     -      -
half     team.a      -     -     -      -
half     shared.b    -     -     -      -
half     other       -     -     -      -
nobody   team.a      -     -     -      -
nobody   shared.b    -     -     -      -
nobody   other       -     -     -      -
stranger team.a      -     -     -      -
stranger shared.b    -     -     -      -
stranger other       -     -     -      -
none     team.a      -     -     -      -
none     shared.b    -     -     -      -
none     other       -     -     -      -
"""

_TABLE_OF_VALUES = """
persona  namespace append merge take
reader   team.a      -      -    -
reader   shared.b    -      -    -
reader   other       -      -    -
starred  team.a      -      -    -
starred  shared.b    -      -    -
starred  other       -      -    -
writer   team.a      +      +    +
writer   shared.b    +      +    +
writer   other       +      +    +
operator team.a      +      +    +
operator shared.b    +      +    +
operator other       +      +    +
team     team.a      +      +    +
team     shared.b    -      -    -
team     other       -      -    -
lead     team.a      +      +    +
lead     shared.b    -      -    -
lead     other       -      -    -
listener team.a      -      -    -
listener shared.b    -      -    -
listener other       -      -    -
dropbox  team.a      +      +    -
dropbox  shared.b    -      -    -
dropbox  other       -      -    -
nowhere  team.a      -      -    -
nowhere  shared.b    -      -    -
nowhere  other       -      -    -
half     team.a      -      -    -
half     shared.b    -      -    -
half     other       -      -    -
nobody   team.a      -      -    -
nobody   shared.b    -      -    -
nobody   other       -      -    -
stranger team.a      -      -    -
stranger shared.b    -      -    -
stranger other       -      -    -
none     team.a      -      -    -
none     shared.b    -      -    -
none     other       -      -    -
"""

_TABLE_OF_THE_WHOLE_STORE = """
persona  list_all usage_all
reader      +         +
starred     +         +
writer      +         +
operator    +         +
team        +         -
lead        +         -
listener    +         -
dropbox     +         -
nowhere     +         -
half        -         -
nobody      -         -
stranger    -         -
none        -         -
"""

NAMESPACES = ("team.a", "shared.b", "other")

#: The namespaces that a listing shows to personas with limited read access.
VISIBLE = {"team": {"team.a", "shared.b"}, "lead": {"team.a", "shared.b"}, "dropbox": set[str](), "nowhere": set[str]()}


@dataclass(frozen=True)
class Cell:
    """A persona's call, and whether it is allowed. ``persona`` None is a call without a persona."""

    persona: str | None
    tool: str
    arguments: dict[str, Any]
    is_allowed: bool


def _rows(table: str) -> Iterator[dict[str, str]]:
    header, *rows = table.strip().splitlines()
    for row in rows:
        yield dict(zip(header.split(), row.split(), strict=True))


def _cells() -> Iterator[Cell]:
    tables = (_TABLE, _TABLE_OF_LIMITS, _TABLE_OF_DURABLE_STEPS, _TABLE_OF_VALUES, _TABLE_OF_THE_WHOLE_STORE)
    for row in (row for table in tables for row in _rows(table)):
        persona = row.pop("persona")
        scope = {"namespace": row.pop("namespace")} if "namespace" in row else {}
        for label, mark in row.items():
            tool, arguments = _CALLS[label]
            yield Cell(None if persona == "none" else persona, tool, {**scope, **arguments}, mark == "+")


CELLS = tuple(_cells())
ALLOWED = tuple(cell for cell in CELLS if cell.is_allowed)
DENIED = tuple(cell for cell in CELLS if not cell.is_allowed)
