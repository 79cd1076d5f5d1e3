"""The tools that change a part of a value, for the catalogue."""

from __future__ import annotations

from typing import Final

from kvworker.model import MAX_KEPT_BYTES, AppendResult, GetAndDeleteResult, MergeResult
from kvworker.tools.definition import WRITES, ResultField, Tool
from kvworker.tools.parameters import EXPECTED_VERSION, IDEMPOTENCY_KEY, ITEMS, KEY, MAX_ITEMS, NAMESPACE, PATCH, TTL
from kvworker.tools.result_fields import (
    BOOLEAN,
    COUNT,
    KEY_FIELD,
    NAMESPACE_FIELD,
    REPLAYED_FIELD,
    TTL_FIELD,
    VERSION_FIELD,
)

_APPEND: Final = Tool(
    name="kv_append",
    summary="Append items to a list, even if others append to it at the same time. A missing entry becomes a list of"
    " the items. Without ttl_seconds the entry keeps its expiry. Give an idempotency_key: without one, a repeated call"
    " appends twice.",
    parameters=(NAMESPACE, KEY, ITEMS, MAX_ITEMS, TTL, IDEMPOTENCY_KEY),
    result=AppendResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("length", COUNT, "The number of items in the list afterwards."),
        ResultField("dropped", COUNT, "The number of items that max_items removed from the front."),
        TTL_FIELD,
        REPLAYED_FIELD,
        VERSION_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
    repeatable=False,
)

_MERGE: Final = Tool(
    name="kv_merge",
    summary="Change some members of a JSON object and leave the others, even if others change it at the same time. The"
    " patch is a JSON merge patch (RFC 7396). A missing entry becomes an object. Without ttl_seconds the entry keeps"
    " its expiry.",
    parameters=(NAMESPACE, KEY, PATCH, TTL, EXPECTED_VERSION, IDEMPOTENCY_KEY),
    result=MergeResult,
    result_fields=(NAMESPACE_FIELD, KEY_FIELD, TTL_FIELD, REPLAYED_FIELD, VERSION_FIELD),
    side_effects="destructive",
    requires_flags=WRITES,
)
_GET_AND_DELETE: Final = Tool(
    name="kv_get_and_delete",
    summary="Return an entry's value and remove the entry, so that only one caller gets it. If there is none, found is"
    f" false; that is not an error. A value above {MAX_KEPT_BYTES} bytes is refused. Give an idempotency_key: a"
    " repeated call with it returns the same value.",
    parameters=(NAMESPACE, KEY, IDEMPOTENCY_KEY),
    result=GetAndDeleteResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("found", BOOLEAN, "True if there was an entry to remove."),
        ResultField("value", {}, "The removed value; left out if found is false.", always=False),
        REPLAYED_FIELD,
    ),
    side_effects="destructive",
    requires_flags=WRITES,
    # The entry is gone either way, but only the first call returns its value.
    repeatable=False,
    reveals=True,
)

VALUE_TOOLS: Final = (_APPEND, _MERGE, _GET_AND_DELETE)
