"""Checks of TTLs and integers."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.errors import (
    InvalidRequestError,
    InvalidTTLError,
)
from kvworker.model import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_SECONDS,
    check_integer,
    check_ttl,
)


@pytest.mark.parametrize(("ttl", "seconds"), [(1, 1.0), (0.001, 0.001), (5e-324, 5e-324), (10**400, MAX_TTL_SECONDS)])
def test_good_ttl(ttl: float, seconds: float) -> None:
    assert check_ttl(ttl) == seconds
    assert isinstance(check_ttl(ttl), float)


def test_no_ttl() -> None:
    assert check_ttl(None) is None


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, -0.0, math.nan, math.inf, -math.inf, True, False, "1", [1], Decimal(1), -(10**5000)], ids=type
)
def test_bad_ttl(ttl: object) -> None:
    with pytest.raises(InvalidTTLError, match="ttl_seconds must be a"):
        check_ttl(ttl)


@given(st.integers(INT64_MIN, INT64_MAX))
def test_good_integers(value: int) -> None:
    assert check_integer("delta", value) == value


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", None, INT64_MAX + 1, INT64_MIN - 1, 10**5000, math.nan, [1]], ids=type
)
def test_bad_integers(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^delta must be a"):
        check_integer("delta", value)
