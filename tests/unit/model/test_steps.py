"""A step keeps its value plain, beside the text to store."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import InvalidRequestError
from kvworker.model import EncodedValue, Step


@pytest.mark.parametrize("value", [{"a": 1}, None, ["x"], "x"], ids=repr)
def test_an_encoded_value_gives_the_same_step_as_its_plain_value(value: Any) -> None:
    encoded: Any = EncodedValue.of(value)
    step = Step("set", "k", value=encoded)
    assert step == Step("set", "k", value=value)
    assert step.value is value
    assert step.text is encoded.text


def test_only_a_set_takes_an_encoded_value() -> None:
    encoded: Any = EncodedValue.of(None)
    with pytest.raises(InvalidRequestError, match="get takes no value"):
        Step("get", "k", value=encoded)
