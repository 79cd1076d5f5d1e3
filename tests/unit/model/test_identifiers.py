"""Checks of namespaces, keys and operation ids, and fresh operation ids."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.errors import (
    InvalidKeyError,
    InvalidRequestError,
)
from kvworker.model import (
    check_key,
    check_namespace,
    check_operation_id,
    new_operation_id,
)

CHECKS: list[tuple[Callable[[object], str], int, type[InvalidRequestError]]] = [
    (check_namespace, 255, InvalidKeyError),
    (check_key, 1024, InvalidKeyError),
    (check_operation_id, 255, InvalidRequestError),
]


@pytest.mark.parametrize(("check", "max_bytes", "error"), CHECKS)
def test_names_are_kept_exactly(check: Callable[[object], str], max_bytes: int, error: type[Exception]) -> None:
    for name in ("a", " a ", "A", "a/b:c", "\u200b", "é" * (max_bytes // 2), "x" * max_bytes, "\n\t.", "🔑"):
        assert check(name) == name


@pytest.mark.parametrize(("check", "max_bytes", "error"), CHECKS)
def test_bad_names(check: Callable[[object], str], max_bytes: int, error: type[Exception]) -> None:
    too_long = ["x" * (max_bytes + 1), "é" * (max_bytes // 2) + "éé"]
    for name in ("", " ", "\t\n", "\u3000", "a\0", "\ud800", None, 1, True, b"a", ["a"], *too_long):
        with pytest.raises(error) as caught:
            check(name)
        assert type(caught.value) is error
        json.dumps(caught.value.args)


@given(st.text(max_size=300))
def test_a_name_passes_unchanged_or_is_refused(name: str) -> None:
    try:
        assert check_namespace(name) == name
    except InvalidKeyError:
        surrogate = any("\ud800" <= character <= "\udfff" for character in name)
        assert surrogate or "\0" in name or not name.strip() or len(name.encode()) > 255


def test_fresh_operation_ids_are_uuids_of_version_7_in_order() -> None:
    ids = [new_operation_id() for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(7, uuid.RFC_4122)}
    milliseconds = [uuid.UUID(text).int >> 80 for text in ids]
    assert milliseconds == sorted(milliseconds)
