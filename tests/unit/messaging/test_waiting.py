"""A message's waiting time comes from its header, which anyone may have written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kvworker.messaging.waiting import waited_seconds, waiting_header

NOW = 1_800_000_000.0


def test_a_message_tells_since_when_it_waits() -> None:
    assert waited_seconds(waiting_header(NOW + 7, 10), NOW) == pytest.approx(3)
    # Two clocks that differ a little.
    assert waited_seconds(waiting_header(NOW + 11, 10), NOW) == 0


@pytest.mark.parametrize(
    "header",
    [
        None,
        "text",
        {},
        {"deadline": NOW},
        {"deadline": "soon", "half_time": NOW},
        {"deadline": math.nan, "half_time": NOW},
        {"deadline": math.inf, "half_time": math.inf},
        {"deadline": 0, "half_time": 0},
        {"deadline": NOW, "half_time": NOW * 2},
        {"deadline": 10**400, "half_time": NOW},
        {"deadline": NOW, "half_time": -(10**400)},
    ],
    ids=str,
)
def test_a_header_that_is_not_credible_tells_nothing(header: Any) -> None:
    assert waited_seconds(header, NOW) is None
