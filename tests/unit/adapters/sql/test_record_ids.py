from __future__ import annotations

import uuid

import pytest

from kvworker.adapters.sql.record_ids import kept_code, record_id, request_digest
from kvworker.model import new_operation_id


def test_ids_of_one_process_share_their_first_byte_and_nothing_else() -> None:
    """So consecutive records are close to each other in the index."""
    prefix = new_operation_id()
    ids = [record_id(f"{prefix}-{number:08x}") for number in range(0x1234_0000, 0x1235_0000, 64)]
    assert {len(id_) for id_ in ids} == {9}
    assert len({id_[:1] for id_ in ids}) == 1
    assert len({id_[1:] for id_ in ids}) == len(ids)


def test_uuids_of_one_minute_share_their_first_byte() -> None:
    ids = {record_id(f"01938f3e-{number:04x}-7aaa-8000-{number:012x}")[:1] for number in range(100)}
    assert len(ids) == 1


def test_random_ids_are_spread() -> None:
    assert len({record_id(str(uuid.UUID(int=number << 64, version=4)))[:1] for number in range(1000)}) > 200


@pytest.mark.parametrize("operation_id", ["a", "abcd", "run-7/step-3", "\U0001f511" * 60])
def test_any_operation_id_has_an_id(operation_id: str) -> None:
    """Records are found by it later, so it must never change."""
    assert record_id(operation_id) == record_id(operation_id)
    assert len(record_id(operation_id)) == 9


def test_an_id_never_changes() -> None:
    assert record_id("run-7/step-3").hex() == "0c342e323f28f3b41c"
    assert request_digest("run-7/step-3", "0" * 32) == -1656123659


def test_the_digest_of_a_request_depends_on_the_operation_id_too() -> None:
    """So a record of another operation with the same request is not taken for this one."""
    assert request_digest("a", "0" * 32) != request_digest("b", "0" * 32)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (0.2, 1),
        (1, 1),
        (3600, 3600),
        (32_767, 32_767),
        (32_768, -3),
        (86_400, -6),
        (86_401, -7),
        (315_360_000, -21_900),
    ],
)
def test_the_time_that_a_record_is_kept_fits_16_bits(seconds: float, code: int) -> None:
    assert kept_code(seconds) == code
    assert (code if code > 0 else code * -14_400) >= seconds
