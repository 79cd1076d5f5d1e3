"""The result fields that tools share, each with its schema and its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvworker.tools.definition import ResultField

COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
STRING: Final[Mapping[str, Any]] = {"type": "string"}
BOOLEAN: Final[Mapping[str, Any]] = {"type": "boolean"}
NULLABLE_STRING: Final[Mapping[str, Any]] = {"type": ["string", "null"]}
NULLABLE_INTEGER: Final[Mapping[str, Any]] = {"type": ["integer", "null"]}

NAMESPACE_FIELD = ResultField("namespace", STRING, "The namespace of the call.")
KEY_FIELD = ResultField("key", STRING, "The key of the call.")
FOUND_FIELD = ResultField("found", BOOLEAN, "True if the entry exists and has not expired.")
TTL_FIELD = ResultField(
    "ttl_seconds",
    {"type": "number", "minimum": 0},
    "Seconds until the entry expires; left out if it does not expire.",
    always=False,
)
VERSION_FIELD = ResultField(
    "version",
    {"type": "integer"},
    "The entry's version. Pass it as expected_version to write only if the entry has not changed.",
    always=False,
)
REPLAYED_FIELD = ResultField(
    "replayed", BOOLEAN, "True if an earlier call with the same idempotency key had already done this."
)
USED_BYTES_FIELD = ResultField("used_bytes", COUNT, "The total size of the stored values, as JSON text in bytes.")
ENTRY_COUNT_FIELD = ResultField("entry_count", COUNT, "The number of entries, including expired ones not yet removed.")
QUOTA_FIELD = ResultField("quota_bytes", NULLABLE_INTEGER, "The upper bound of used_bytes; null if there is no quota.")
ENTRY_LIMIT_FIELD = ResultField("entry_limit", COUNT, "The upper bound of entry_count.", always=False)
RECORD_COUNT_FIELD = ResultField(
    "record_count", COUNT, "The number of operation records, with those that entries hold in reserve."
)
RECORD_LIMIT_FIELD = ResultField("record_limit", COUNT, "The upper bound of record_count.", always=False)
NEXT_CURSOR_FIELD = ResultField("next_cursor", NULLABLE_STRING, "The cursor of the next page; null on the last page.")


def object_schema(*fields: ResultField) -> dict[str, Any]:
    """Return the schema of an object with these fields."""
    return {
        "type": "object",
        "properties": {field.name: {**field.schema, "description": field.description} for field in fields},
        "required": [field.name for field in fields if field.always],
    }


LISTED_ENTRY = object_schema(
    ResultField("key", STRING, "The entry's key."),
    ResultField("version", {"type": "integer"}, "The entry's version."),
    ResultField("size_bytes", COUNT, "The size of the entry's value as JSON text, in bytes."),
    TTL_FIELD,
    ResultField("value", {}, "The entry's value; left out unless include_values is true.", always=False),
)
#: The fields of a ledger, of a namespace or of the whole store.
LEDGER_FIELDS = (
    USED_BYTES_FIELD,
    ENTRY_COUNT_FIELD,
    QUOTA_FIELD,
    ENTRY_LIMIT_FIELD,
    RECORD_COUNT_FIELD,
    RECORD_LIMIT_FIELD,
)
LISTED_NAMESPACE = object_schema(NAMESPACE_FIELD, *LEDGER_FIELDS)
