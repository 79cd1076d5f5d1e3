"""Permits and rate limits without a database: what their values may be, and tokens that grow."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.errors import InvalidValueTypeError
from kvworker.model import (
    AcquirePermitStep,
    Change,
    ComputedStep,
    RateLimitStep,
    ReleasePermitStep,
    RenewPermitStep,
    StepMoment,
    StoredEntry,
    encode_value,
)

NOW = 1_000.0
MOMENT = StepMoment("n", NOW, 8)
PERMIT = {"holder": "h", "token": 5, "until": 2_000_000_000}

PERMIT_STEPS = (
    AcquirePermitStep("acquire_permit", "k", holder="h", ttl_seconds=60),
    RenewPermitStep("renew_permit", "k", holder="h", ttl_seconds=60),
    ReleasePermitStep("release_permit", "k", holder="h"),
)


def change(step: ComputedStep, value: Any) -> Change:
    return step.change(StoredEntry(encode_value(value), None, 7), MOMENT)


@pytest.mark.parametrize(
    "value",
    [
        {"$permits": None},
        {"$permits": {"holder": "h"}},
        {"$permits": [], "mine": 1},
        {"$permits": ["h"]},
        {"$permits": [{"holder": "h", "token": 5}]},
        {"$permits": [{**PERMIT, "mine": 1}]},
        *({"$permits": [{**PERMIT, "until": until}]} for until in (None, "x", True, 1.5, -1, 10**400)),
        *({"$permits": [{**PERMIT, "token": token}]} for token in (None, "x", True, 0, 2**63)),
        {"$permits": [{**PERMIT, "holder": 1}]},
    ],
)
@pytest.mark.parametrize("step", PERMIT_STEPS, ids=lambda step: step.action)
def test_a_value_that_only_looks_like_permits_is_refused(step: ComputedStep, value: Any) -> None:
    with pytest.raises(InvalidValueTypeError, match="not a lease or semaphore"):
        change(step, value)


@pytest.mark.parametrize("value", [{"$full_at": 1, "mine": 1}, *({"$full_at": at} for at in (None, 1.5, -1, 10**400))])
def test_a_value_that_only_looks_like_a_rate_limit_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValueTypeError, match="not a rate limit"):
        change(RateLimitStep("rate_limit", "k"), value)


def test_a_token_grows_where_the_clock_is_behind_that_of_the_store_whose_entry_was_imported() -> None:
    expired = {"holder": "before", "token": 5_000, "until": 1}
    granted = change(PERMIT_STEPS[0], {"$permits": [expired]}).answer
    assert isinstance(granted, list)
    assert granted[0] == 5_001
