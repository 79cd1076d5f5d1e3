"""``append``: a part of a value, as JSON arguments."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Kvworker


def test_append_takes_each_item_as_json(kvworker: Kvworker) -> None:
    assert kvworker("append", "n", "l", '"a"', "-1", '{"b": null}').out == "3 items\n"
    assert kvworker("append", "n", "l", "-", stdin=b"[4]").out == "4 items\n"
    assert kvworker("get", "n", "l").json == ["a", -1, {"b": None}, [4]]
    assert kvworker("append", "n", "l", "5", "--max-items", "2", "--ttl", "60").out == "2 items, 3 dropped\n"
    once = ("append", "n", "l", "6", "--idempotency-key", "once")
    assert kvworker(*once).out == "3 items\n"
    assert kvworker(*once).out.startswith("3 items (replayed: ")
    result = kvworker(*once, "--json").json
    assert (result["length"], result["dropped"], result["replayed"]) == (3, 0, True)
    assert 50 < result["ttl_seconds"] <= 60


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["append", "n", "l"], 2, "Missing argument 'ITEM...'"),
        (["append", "n", "l", "1", "text"], 1, "ITEM is not JSON: Expecting value. Quote it for the shell"),
        (["append", "n", "l", "NaN"], 1, "the value is not JSON"),
        (["append", "n", "l", "1", "--max-items", "0"], 1, "max_items must be from 1 to "),
        (["append", "n", "object", "1"], 1, "the stored value is not a list; use another key, or store a list first"),
    ],
)
def test_a_mistake_is_one_line(kvworker: Kvworker, arguments: list[str], code: int, message: str) -> None:
    kvworker("set", "n", "object", "{}")
    ran = kvworker(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert message in ran.err
    assert kvworker("get", "n", "l", "--json").json["found"] is False
