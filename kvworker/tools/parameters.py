"""The parameters of the tools, each with its schema, its description and its check."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    INT64_MAX,
    INT64_MIN,
    MAX_KEY_BYTES,
    MAX_NAMESPACE_BYTES,
    MAX_OPERATION_ID_BYTES,
    MAX_PAGE_ROWS,
    MAX_QUOTA_BYTES,
    EncodedValue,
    check_count,
    check_cursor,
    check_flag,
    check_integer,
    check_items,
    check_key,
    check_max_items,
    check_namespace,
    check_operation_id,
    check_prefix,
    check_quota,
    check_touch_ttl,
    check_ttl,
    check_version,
)
from kvworker.tools.definition import Parameter

_INT64: Final[Mapping[str, Any]] = {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX}


def _name_schema(max_bytes: int) -> Mapping[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": max_bytes}


NAMESPACE = Parameter(
    "namespace",
    _name_schema(MAX_NAMESPACE_BYTES),
    "The namespace. It keeps the entries of one agent, session or purpose apart from all others."
    f" Not blank, at most {MAX_NAMESPACE_BYTES} bytes of UTF-8.",
    check_namespace,
)
KEY = Parameter(
    "key",
    _name_schema(MAX_KEY_BYTES),
    f"The entry's key within the namespace. Not blank, at most {MAX_KEY_BYTES} bytes of UTF-8.",
    check_key,
)
VALUE = Parameter("value", {}, "The value to store: any JSON value.", EncodedValue.of, holds_values=True)
ITEMS = Parameter(
    "items",
    {"type": "array", "minItems": 1},
    'The items to append, in a list: any JSON values, such as ["text", {"a": 1}].',
    check_items,
    holds_values=True,
)
PATCH = Parameter(
    "patch",
    {},
    "The JSON merge patch: an object with the members to set, in which null removes a member and an object changes a"
    " member's own members. Anything but an object replaces the whole value.",
    EncodedValue.of,
    holds_values=True,
)
MAX_ITEMS = Parameter(
    "max_items",
    {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
    "The most items that the list keeps. Beyond it, the oldest are removed from the front.",
    check_max_items,
    required=False,
)
TTL = Parameter(
    "ttl_seconds",
    {"type": "number", "exclusiveMinimum": 0},
    "Seconds until the entry expires.",
    check_ttl,
    required=False,
)
TOUCH_TTL = Parameter("ttl_seconds", TTL.schema, TTL.description, check_touch_ttl)
IDEMPOTENCY_KEY = Parameter(
    "idempotency_key",
    _name_schema(MAX_OPERATION_ID_BYTES),
    "A name for this operation. Calls with the same name and arguments are applied only once; later ones return the"
    " first result with replayed true. Give one if a step may run twice, for example the run id and the step number.",
    check_operation_id,
    required=False,
)
EXPECTED_VERSION = Parameter(
    "expected_version",
    {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
    "Write only if the entry still has this version, which an earlier result gave. Otherwise the call fails with"
    " VersionConflictError and changes nothing.",
    check_version,
    required=False,
)
IF_ABSENT = Parameter(
    "if_absent",
    {"type": "boolean", "default": False},
    "Write only if the entry does not exist. Otherwise the call fails with VersionConflictError and changes nothing.",
    partial(check_flag, "if_absent"),
    required=False,
)
KEEP_TTL = Parameter(
    "keep_ttl",
    {"type": "boolean", "default": False},
    "Keep the entry's current expiry. If false, a call without ttl_seconds removes it.",
    partial(check_flag, "keep_ttl"),
    required=False,
)
DELTA = Parameter(
    "delta",
    {**_INT64, "default": 1},
    "The number to add; may be negative.",
    partial(check_integer, "delta"),
    required=False,
)
INITIAL_VALUE = Parameter(
    "initial_value",
    {**_INT64, "default": 0},
    "The value of a missing counter before delta is added.",
    partial(check_integer, "initial_value"),
    required=False,
)
KEY_PREFIX = Parameter(
    "prefix",
    {"type": "string", "maxLength": MAX_KEY_BYTES, "default": ""},
    "Lists only keys that begin with this prefix.",
    partial(check_prefix, "prefix", max_bytes=MAX_KEY_BYTES),
    required=False,
)
NAMESPACE_PREFIX = Parameter(
    "prefix",
    {"type": "string", "maxLength": MAX_NAMESPACE_BYTES, "default": ""},
    "Lists only namespaces that begin with this prefix.",
    partial(check_prefix, "prefix", max_bytes=MAX_NAMESPACE_BYTES),
    required=False,
)
LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ROWS, "default": DEFAULT_PAGE_ROWS},
    "The maximum number of items to return.",
    partial(check_count, "limit", largest=MAX_PAGE_ROWS),
    required=False,
)
CURSOR = Parameter(
    "cursor",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES},
    "The next_cursor of the previous page. Leave it out for the first page.",
    check_cursor,
    required=False,
)
INCLUDE_VALUES = Parameter(
    "include_values",
    {"type": "boolean", "default": False},
    "Also return the values. A page then ends once its values reach 4 MiB, even below the limit.",
    partial(check_flag, "include_values"),
    required=False,
)
QUOTA_BYTES = Parameter(
    "quota_bytes",
    {"type": "integer", "minimum": 1, "maximum": MAX_QUOTA_BYTES},
    "The namespace's own quota in bytes. If it is left out or null, the configured quota applies again.",
    check_quota,
    required=False,
)
ATOMIC = Parameter(
    "atomic",
    {"type": "boolean", "default": True},
    "true: if one operation is refused, none is applied. false: each operation is applied or refused on its own.",
    partial(check_flag, "atomic"),
    required=False,
)
