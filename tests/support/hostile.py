"""Hypothesis strategies for what someone may write to a broker."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from hypothesis import strategies as st

#: The types of kombu's JSON, and ours.
TAGS: Final = ("uuid", "datetime", "date", "time", "bytes", "base64", "decimal", "kvworker.literal", "no-such")
#: A sound message of the queue ``kv``, as kombu keeps it in Redis.
SOUND: Final[dict[str, Any]] = {
    "body": "W10=",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": "kvworker.kv_get", "id": "hostile", "clock": 1, "timelimit": [None, None], "group": None},
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": "hostile",
        "delivery_info": {"exchange": "", "routing_key": "kv"},
        "priority": 0,
    },
}

_deep = st.integers(30, 3000).map(lambda levels: json.loads("[" * min(levels, 900) + "]" * min(levels, 900)))
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 2**63, -1])
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
)


def _with_tags(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tagged = st.fixed_dictionaries({"__type__": st.sampled_from(TAGS) | inner, "__value__": inner})
    return tagged | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


#: Any JSON, and above all what kombu takes for one of its types.
json_values: Final = st.recursive(_leaves, _with_tags, max_leaves=8) | _deep


@st.composite
def changed_messages(draw: st.DrawFn) -> dict[str, Any]:
    """Change one part of a sound message."""
    message = copy.deepcopy(SOUND)
    part = draw(st.sampled_from([message, message["headers"], message["properties"]]))
    names = [*part, "compression", "delivery_info", "new"]
    part[draw(st.sampled_from(names))] = draw(json_values)
    return message


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


#: Possible contents of a queue, a channel or a record.
items: Final = (
    changed_messages().map(_encoded)
    | json_values.map(_encoded)
    | st.binary(max_size=30)
    | st.integers(1000, 100_000).map(lambda levels: b"[" * levels)
)
