"""The definition of every tool. Callers, workers, manifests and schemas all derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
from kvworker.tools.definition import ADMIN_FLAG, READS, WRITES, Parameter, ResultField, Tool
from kvworker.tools.limit_tools import LIMIT_TOOLS
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
from kvworker.tools.result_fields import (
    BOOLEAN,
    COUNT,
    FOUND_FIELD,
    KEY_FIELD,
    LEDGER_FIELDS,
    LISTED_ENTRY,
    LISTED_NAMESPACE,
    NAMESPACE_FIELD,
    NEXT_CURSOR_FIELD,
    NULLABLE_INTEGER,
    NULLABLE_STRING,
    REPLAYED_FIELD,
    STRING,
    TTL_FIELD,
    VERSION_FIELD,
)
from kvworker.tools.step_tools import DURABLE_STEP_TOOLS, STEP_STATUS
from kvworker.tools.value_tools import VALUE_TOOLS

_GET = Tool(
    name="kv_get",
    summary="Read a value by namespace and key. If the entry is missing or expired, found is false; that is"
    " not an error.",
    parameters=(NAMESPACE, KEY),
    result=GetResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        FOUND_FIELD,
        ResultField("value", {}, "The stored value; left out if found is false.", always=False),
        TTL_FIELD,
        VERSION_FIELD,
    ),
    side_effects="none",
    requires_flags=READS,
)
_SET = Tool(
    name="kv_set",
    summary="Store a JSON value under a key, replacing any existing value. Without ttl_seconds the entry does not"
    " expire, even if it did before.",
    parameters=(NAMESPACE, KEY, VALUE, TTL, EXPECTED_VERSION, IF_ABSENT, KEEP_TTL, IDEMPOTENCY_KEY),
    result=SetResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("value", {}, "The stored value."),
        TTL_FIELD,
        REPLAYED_FIELD,
        VERSION_FIELD,
    ),
    side_effects="destructive",
    requires_flags=WRITES,
)
_DELETE = Tool(
    name="kv_delete",
    summary="Remove an entry. If there is none, deleted is false; that is not an error.",
    parameters=(NAMESPACE, KEY, EXPECTED_VERSION, IDEMPOTENCY_KEY),
    result=DeleteResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("deleted", BOOLEAN, "True if there was an entry to remove."),
        REPLAYED_FIELD,
    ),
    side_effects="destructive",
    requires_flags=WRITES,
)
_INCREMENT = Tool(
    name="kv_increment",
    summary="Add to an integer counter atomically and return its new value. A missing counter becomes initial_value"
    " + delta. Without ttl_seconds the counter keeps its expiry. Give an idempotency_key: without one, a repeated call"
    " counts twice.",
    parameters=(NAMESPACE, KEY, DELTA, INITIAL_VALUE, TTL, IDEMPOTENCY_KEY),
    result=IncrementResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("value", {"type": "integer"}, "The counter's new value."),
        TTL_FIELD,
        REPLAYED_FIELD,
        VERSION_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
    repeatable=False,
)
_TOUCH_FIELDS = (NAMESPACE_FIELD, KEY_FIELD, FOUND_FIELD, TTL_FIELD, REPLAYED_FIELD, VERSION_FIELD)
_TOUCH = Tool(
    name="kv_touch",
    summary="Make an existing entry expire ttl_seconds from now. Its value and version do not change.",
    parameters=(NAMESPACE, KEY, TOUCH_TTL, EXPECTED_VERSION, IDEMPOTENCY_KEY),
    result=TouchResult,
    result_fields=_TOUCH_FIELDS,
    side_effects="write",
    requires_flags=WRITES,
)
_PERSIST = Tool(
    name="kv_persist",
    summary="Remove an existing entry's expiry, so that it stays until it is deleted. Its value and version do not"
    " change.",
    parameters=(NAMESPACE, KEY, EXPECTED_VERSION, IDEMPOTENCY_KEY),
    result=TouchResult,
    result_fields=_TOUCH_FIELDS,
    side_effects="write",
    requires_flags=WRITES,
)
_LIST_KEYS = Tool(
    name="kv_list_keys",
    summary="List a namespace's entries, sorted by key, one page at a time. To get the next page, pass next_cursor as"
    " cursor; it is null on the last page.",
    parameters=(NAMESPACE, KEY_PREFIX, LIMIT, CURSOR, INCLUDE_VALUES),
    result=KeyList,
    result_fields=(
        NAMESPACE_FIELD,
        ResultField("entries", {"type": "array", "items": LISTED_ENTRY}, "The entries of this page."),
        NEXT_CURSOR_FIELD,
    ),
    side_effects="none",
    requires_flags=READS,
)
_LIST_NAMESPACES = Tool(
    name="kv_list_namespaces",
    summary="List the namespaces that have entries, sorted by name, each with its usage, one page at a time. To get the"
    " next page, pass next_cursor as cursor; it is null on the last page.",
    parameters=(NAMESPACE_PREFIX, LIMIT, CURSOR),
    result=NamespaceList,
    result_fields=(
        ResultField("namespaces", {"type": "array", "items": LISTED_NAMESPACE}, "The namespaces of this page."),
        NEXT_CURSOR_FIELD,
    ),
    side_effects="none",
    requires_flags=READS,
)
_CLEAR = Tool(
    name="kv_clear",
    summary="Remove every entry of a namespace at once. This cannot be undone.",
    parameters=(NAMESPACE, IDEMPOTENCY_KEY),
    result=ClearResult,
    result_fields=(
        NAMESPACE_FIELD,
        ResultField("deleted_entries", COUNT, "The number of entries removed, without expired ones."),
        ResultField("freed_bytes", COUNT, "The number of bytes freed in the quota."),
        REPLAYED_FIELD,
    ),
    side_effects="destructive",
    requires_flags=WRITES,
)
_USAGE = Tool(
    name="kv_usage",
    summary="Show how many bytes of its quota a namespace uses; without a namespace, the whole store's usage.",
    parameters=(Parameter("namespace", NAMESPACE.schema, NAMESPACE.description, NAMESPACE.check, required=False),),
    result=LedgerUsage,
    result_fields=(
        ResultField("namespace", NULLABLE_STRING, "The namespace; null for the whole store."),
        *LEDGER_FIELDS,
        ResultField("namespace_count", COUNT, "The number of namespaces of the whole store.", always=False),
        ResultField("namespace_limit", COUNT, "The upper bound of namespace_count.", always=False),
    ),
    side_effects="none",
    requires_flags=READS,
)
_SET_QUOTA = Tool(
    name="kv_set_quota",
    summary="Give a namespace its own quota, or return it to the configured one. A smaller quota removes no entries; it"
    " only refuses writes that would make the namespace grow.",
    parameters=(NAMESPACE, QUOTA_BYTES, IDEMPOTENCY_KEY),
    result=QuotaResult,
    result_fields=(
        NAMESPACE_FIELD,
        ResultField(
            "quota_bytes",
            NULLABLE_INTEGER,
            "The namespace's own quota; null if the configured quota applies.",
        ),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=(*WRITES, ADMIN_FLAG),
)

#: The tools that may be an operation of a batch.
STEP_TOOLS: Final = (_GET, _SET, _DELETE, _INCREMENT, _TOUCH, _PERSIST, *LIMIT_TOOLS, *VALUE_TOOLS, *DURABLE_STEP_TOOLS)

_BATCH = Tool(
    name="kv_batch",
    summary="Run several operations on one namespace in order, in one transaction, under one idempotency key. A batch"
    " that only reads values needs no write access.",
    parameters=(
        NAMESPACE,
        Parameter(
            "operations",
            {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_STEPS},
            "The operations, in order. Each is an object with the name of its tool"
            f" ({', '.join(tool.name for tool in STEP_TOOLS)}) and that tool's arguments, without namespace and"
            " idempotency_key.",
            OperationsCheck(STEP_TOOLS),
        ),
        ATOMIC,
        IDEMPOTENCY_KEY,
    ),
    result=BatchResult,
    result_fields=(
        NAMESPACE_FIELD,
        ResultField(
            "results",
            {
                "type": "array",
                "items": {"type": "object", "properties": {"tool": STRING}, "required": ["tool"]},
            },
            "One result for each operation, in order: its tool and its result fields. In a batch that is not atomic,"
            " a refused operation has its error instead.",
        ),
        REPLAYED_FIELD,
    ),
    side_effects="destructive",
    requires_flags=WRITES,
    repeatable=False,
)

TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (*STEP_TOOLS, STEP_STATUS, _LIST_KEYS, _LIST_NAMESPACES, _CLEAR, _USAGE, _SET_QUOTA, _BATCH)
}


def find_tool(name: str) -> Tool:
    """Return the tool of that name.

    Raises:
        InvalidRequestError: There is none.
    """
    try:
        return TOOLS[name]
    except (KeyError, TypeError):
        raise InvalidRequestError(f"unknown tool {shown_name(name)}; the tools are {', '.join(TOOLS)}") from None
