"""The tools that change a part of a value, for the catalogue."""

from __future__ import annotations

from typing import Final

from kvworker.model import AppendResult
from kvworker.tools.definition import WRITES, ResultField, Tool
from kvworker.tools.parameters import IDEMPOTENCY_KEY, ITEMS, KEY, MAX_ITEMS, NAMESPACE, TTL
from kvworker.tools.result_fields import (
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

VALUE_TOOLS: Final = (_APPEND,)
