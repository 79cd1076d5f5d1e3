"""Every tool, defined once: what callers, workers, manifests and schemas go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvworker.errors import InvalidRequestError
from kvworker.model import (
    MAX_BATCH_STEPS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    KeyList,
    LedgerUsage,
    NamespaceList,
    QuotaResult,
    SetResult,
    TouchResult,
    shown_name,
)
from kvworker.tools.batch import OperationsCheck
from kvworker.tools.definition import ACCESS_FLAG, ADMIN_FLAG, WRITE_FLAG, Parameter, ResultField, Tool
from kvworker.tools.parameters import (
    ATOMIC,
    CURSOR,
    DELTA,
    EXPECTED_VERSION,
    IDEMPOTENCY_KEY,
    IF_ABSENT,
    INCLUDE_VALUES,
    INITIAL_VALUE,
    KEEP_TTL,
    KEY,
    KEY_PREFIX,
    LIMIT,
    NAMESPACE,
    NAMESPACE_PREFIX,
    QUOTA_BYTES,
    TOUCH_TTL,
    TTL,
    VALUE,
)

_READS = (ACCESS_FLAG,)
_WRITES = (ACCESS_FLAG, WRITE_FLAG)

_BYTES: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
_STRING: Final[Mapping[str, Any]] = {"type": "string"}
_BOOLEAN: Final[Mapping[str, Any]] = {"type": "boolean"}
_NULLABLE_STRING: Final[Mapping[str, Any]] = {"type": ["string", "null"]}
_NULLABLE_BYTES: Final[Mapping[str, Any]] = {"type": ["integer", "null"]}

_NAMESPACE = ResultField("namespace", _STRING, "The namespace that was asked for.")
_KEY = ResultField("key", _STRING, "The key that was asked for.")
_TTL = ResultField(
    "ttl_seconds",
    {"type": "number", "minimum": 0},
    "Seconds until the entry expires; left out if it does not.",
    always=False,
)
_VERSION = ResultField(
    "version", {"type": "integer"}, "The entry's version, which a later write may expect.", always=False
)
_REPLAYED = ResultField("replayed", _BOOLEAN, "Whether the idempotency key had been applied before.")
_USED_BYTES = ResultField("used_bytes", _BYTES, "Bytes of serialized values in use.")
_ENTRY_COUNT = ResultField("entry_count", _BYTES, "Entries, expired ones that were not swept yet included.")
_QUOTA = ResultField("quota_bytes", _NULLABLE_BYTES, "The bound on used_bytes; null if there is none.")


def _object(*fields: ResultField) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: {**field.schema, "description": field.description} for field in fields},
        "required": [field.name for field in fields if field.always],
    }


_LISTED_ENTRY = _object(
    ResultField("key", _STRING, "The entry's key."),
    ResultField("version", {"type": "integer"}, "The entry's version."),
    ResultField("size_bytes", _BYTES, "The size of its serialized value."),
    _TTL,
    ResultField("value", {}, "Its value, if values were asked for.", always=False),
)
_NEXT_CURSOR = ResultField("next_cursor", _NULLABLE_STRING, "The cursor of the next page; null after the last.")

_GET = Tool(
    "kv_get",
    "get",
    "Read a value by namespace and key. A missing or expired entry gives found false, which is no error.",
    (NAMESPACE, KEY),
    GetResult,
    (
        _NAMESPACE,
        _KEY,
        ResultField("found", _BOOLEAN, "Whether there is a live entry."),
        ResultField("value", {}, "The stored value, if found.", always=False),
        _TTL,
        _VERSION,
    ),
    "none",
    _READS,
)
_SET = Tool(
    "kv_set",
    "set",
    "Store a JSON value under a key, replacing what is there. Without ttl_seconds it does not expire, whatever it"
    " did before.",
    (NAMESPACE, KEY, VALUE, TTL, EXPECTED_VERSION, IF_ABSENT, KEEP_TTL, IDEMPOTENCY_KEY),
    SetResult,
    (_NAMESPACE, _KEY, ResultField("value", {}, "The value that was stored."), _TTL, _REPLAYED, _VERSION),
    "destructive",
    _WRITES,
)
_DELETE = Tool(
    "kv_delete",
    "delete",
    "Remove an entry. That it is not there is no error: deleted is then false.",
    (NAMESPACE, KEY, EXPECTED_VERSION, IDEMPOTENCY_KEY),
    DeleteResult,
    (_NAMESPACE, _KEY, ResultField("deleted", _BOOLEAN, "Whether a live entry was removed."), _REPLAYED),
    "destructive",
    _WRITES,
)
_INCREMENT = Tool(
    "kv_increment",
    "increment",
    "Add to an integer counter atomically and return its new value. A missing counter becomes initial_value + delta."
    " Without ttl_seconds it keeps the expiry it has. Give an idempotency_key: without one, a repeated call counts"
    " twice.",
    (NAMESPACE, KEY, DELTA, INITIAL_VALUE, TTL, IDEMPOTENCY_KEY),
    IncrementResult,
    (
        _NAMESPACE,
        _KEY,
        ResultField("value", {"type": "integer"}, "The counter's new value."),
        _TTL,
        _REPLAYED,
        _VERSION,
    ),
    "write",
    _WRITES,
    repeatable=False,
)
_TOUCH_FIELDS = (
    _NAMESPACE,
    _KEY,
    ResultField("found", _BOOLEAN, "Whether there is a live entry."),
    _TTL,
    _REPLAYED,
    _VERSION,
)
_TOUCH = Tool(
    "kv_touch",
    "touch",
    "Let an existing entry expire ttl_seconds from now; its value and version stay as they are.",
    (NAMESPACE, KEY, TOUCH_TTL, IDEMPOTENCY_KEY),
    TouchResult,
    _TOUCH_FIELDS,
    "write",
    _WRITES,
)
_PERSIST = Tool(
    "kv_persist",
    "persist",
    "Let an existing entry stay for good: removes its expiry; its value and version stay as they are.",
    (NAMESPACE, KEY, IDEMPOTENCY_KEY),
    TouchResult,
    _TOUCH_FIELDS,
    "write",
    _WRITES,
)
_LIST_KEYS = Tool(
    "kv_list_keys",
    "list_keys",
    "List a namespace's live entries in order of their keys, a page at a time. Go on with next_cursor until it is"
    " null.",
    (NAMESPACE, KEY_PREFIX, LIMIT, CURSOR, INCLUDE_VALUES),
    KeyList,
    (
        _NAMESPACE,
        ResultField("entries", {"type": "array", "items": _LISTED_ENTRY}, "The entries of this page."),
        _NEXT_CURSOR,
    ),
    "none",
    _READS,
)
_LIST_NAMESPACES = Tool(
    "kv_list_namespaces",
    "list_namespaces",
    "List the namespaces that have entries, with their usage, in order, a page at a time. Go on with next_cursor"
    " until it is null.",
    (NAMESPACE_PREFIX, LIMIT, CURSOR),
    NamespaceList,
    (
        ResultField(
            "namespaces",
            {"type": "array", "items": _object(_NAMESPACE, _USED_BYTES, _ENTRY_COUNT, _QUOTA)},
            "The namespaces of this page.",
        ),
        _NEXT_CURSOR,
    ),
    "none",
    _READS,
)
_CLEAR = Tool(
    "kv_clear",
    "clear",
    "Remove every entry of a namespace at once. There is no way back.",
    (NAMESPACE, IDEMPOTENCY_KEY),
    ClearResult,
    (
        _NAMESPACE,
        ResultField("deleted_entries", _BYTES, "How many live entries were removed."),
        ResultField("freed_bytes", _BYTES, "Bytes of the quota that were given back."),
        _REPLAYED,
    ),
    "destructive",
    _WRITES,
)
_USAGE = Tool(
    "kv_usage",
    "usage",
    "Tell how many bytes a namespace uses of its quota; without a namespace, the whole store.",
    (Parameter("namespace", NAMESPACE.schema, NAMESPACE.description, NAMESPACE.check, required=False),),
    LedgerUsage,
    (
        ResultField("namespace", _NULLABLE_STRING, "The namespace; null for the whole store."),
        _USED_BYTES,
        _ENTRY_COUNT,
        _QUOTA,
    ),
    "none",
    _READS,
)
_SET_QUOTA = Tool(
    "kv_set_quota",
    "set_quota",
    "Give a namespace a quota of its own, or the configured one back. What is stored stays, even above a smaller"
    " quota; what would grow is then refused.",
    (NAMESPACE, QUOTA_BYTES, IDEMPOTENCY_KEY),
    QuotaResult,
    (
        _NAMESPACE,
        ResultField("quota_bytes", _NULLABLE_BYTES, "The namespace's own quota; null: the configured one."),
        _REPLAYED,
    ),
    "write",
    (*_WRITES, ADMIN_FLAG),
)

#: The tools that may be an operation of a batch.
STEP_TOOLS: Final = (_GET, _SET, _DELETE, _INCREMENT, _TOUCH, _PERSIST)

_BATCH = Tool(
    "kv_batch",
    "batch",
    "Run many operations of one namespace in order, in one transaction, under one idempotency key. If values are"
    " only read it needs no write access.",
    (
        NAMESPACE,
        Parameter(
            "operations",
            {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_STEPS},
            "The operations in their order: each an object with the name of its tool"
            f" ({', '.join(tool.name for tool in STEP_TOOLS)}) and that tool's arguments, but for namespace and"
            " idempotency_key.",
            OperationsCheck(STEP_TOOLS),
        ),
        ATOMIC,
        IDEMPOTENCY_KEY,
    ),
    BatchResult,
    (
        _NAMESPACE,
        ResultField(
            "results",
            {"type": "array", "items": {"type": "object", "properties": {"tool": _STRING}, "required": ["tool"]}},
            "What each operation gave, in their order: its tool and result, or, in a batch that is not atomic, its"
            " error.",
        ),
        _REPLAYED,
    ),
    "destructive",
    _WRITES,
    repeatable=False,
)

TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        *STEP_TOOLS,
        _LIST_KEYS,
        _LIST_NAMESPACES,
        _CLEAR,
        _USAGE,
        _SET_QUOTA,
        _BATCH,
    )
}


def find_tool(name: str) -> Tool:
    """The operation of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    try:
        return TOOLS[name]
    except (KeyError, TypeError):
        raise InvalidRequestError(f"unknown tool {shown_name(name)}; the tools are {', '.join(TOOLS)}") from None
