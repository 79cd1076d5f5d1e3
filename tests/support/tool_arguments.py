"""Arguments of tools as callers pass them, with an occasional mistake."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from kvworker.model import FINISHED_STATES, UNRECORDED
from kvworker.tools import STEP_TOOLS, TOOLS, Tool

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["a", "ü" * 127, "x" * 255])
NUMBERS = st.sampled_from([1, 2, 999, 1000])
GOOD = {
    **dict.fromkeys(("namespace", "key", "prefix", "cursor", "idempotency_key", "holder"), NAMES),
    **dict.fromkeys(("limit", "quota_bytes", "expected_version", "permits", "burst", "quantity", "max_items"), NUMBERS),
    **dict.fromkeys(("token", "takeover_token"), NUMBERS),
    "per_seconds": NUMBERS | st.sampled_from([0.001, 1e6]),
    **dict.fromkeys(("delta", "initial_value"), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys(("if_absent", "keep_ttl", "atomic", "include_values"), st.booleans() | st.none()),
    "ttl_seconds": NUMBERS | st.sampled_from([0.001, 1e300, None]),
    **dict.fromkeys(("value", "arguments", "patch"), VALUES),
    "items": st.lists(VALUES, min_size=1, max_size=2),
    "lease_seconds": st.sampled_from([0.5, 60, 60.0, 86_400]),
    "state": st.sampled_from(FINISHED_STATES),
    "unrecorded": st.sampled_from(UNRECORDED),
}
JUNK = st.sampled_from(
    [None, True, 0, -1, 0.5, 1.0, 2**63, "", " ", "1", "nul\x00", "ü" * 600, [], [1], {}, {"tool": None}]
)


def sometimes(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 19)) == 0


@st.composite
def some_arguments(draw: st.DrawFn, tool: Tool) -> dict[str, Any]:
    """Draw arguments of the tool, with an occasional mistake."""
    names = [name for name in tool.required if not sometimes(draw)]
    names += [name for name in tool.optional if draw(st.booleans())]
    names += ["nonsense"] if sometimes(draw) else []
    return {name: draw(JUNK if name == "nonsense" or sometimes(draw) else good_argument(name)) for name in names}


def good_argument(name: str) -> st.SearchStrategy[Any]:
    return st.lists(some_step(), min_size=1, max_size=2) if name == "operations" else GOOD[name]


@st.composite
def some_step(draw: st.DrawFn) -> dict[str, Any]:
    tool = draw(st.sampled_from([*STEP_TOOLS, TOOLS["kv_usage"]]))
    arguments = draw(some_arguments(tool))
    common = set() if sometimes(draw) else {"namespace", "idempotency_key"}
    return {"tool": tool.name, **{name: value for name, value in arguments.items() if name not in common}}
