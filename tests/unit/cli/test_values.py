"""``append``, ``merge`` and ``pop``."""

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


def test_merge_takes_a_json_patch(kvworker: Kvworker) -> None:
    first = kvworker("merge", "n", "o", '{"a": 1, "b": {"c": 2}}', "--json").json
    assert (first["replayed"], "value" in first) == (False, False)
    assert kvworker("merge", "n", "o", "-", "--ttl", "60", stdin=b'{"a": null}').out == "merged, expires in 60 s\n"
    refused = kvworker("merge", "n", "o", "{}", "--expected-version", str(first["version"]))
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert kvworker("get", "n", "o").json == {"b": {"c": 2}}
    assert kvworker("merge", "n", "p", "-1").out == "merged\n"
    assert kvworker("get", "n", "p").json == -1


def test_pop_prints_a_value_and_removes_it(kvworker: Kvworker) -> None:
    kvworker("set", "n", "k", '{"é": [1]}')
    once = ("pop", "n", "k", "--idempotency-key", "once")
    assert [kvworker(*once).out for _ in range(2)] == ['{"é": [1]}\n'] * 2
    assert kvworker(*once, "--json").json["replayed"] is True
    missed = kvworker("pop", "n", "k")
    assert missed == kvworker("get", "n", "k")
    assert (missed.code, missed.err) == (1, "Error: no entry 'k' in namespace 'n'\n")
    assert kvworker("pop", "n", "k", "--json").json["found"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["append", "n", "l"], 2, "Missing argument 'ITEM...'"),
        (["append", "n", "l", "1", "text"], 1, "ITEM is not JSON: Expecting value. Quote it for the shell"),
        (["append", "n", "l", "NaN"], 1, "the value is not JSON"),
        (["append", "n", "l", "1", "--max-items", "0"], 1, "max_items must be from 1 to "),
        (["merge", "n", "l", "{"], 1, "PATCH is not JSON: "),
        (["append", "n", "object", "1"], 1, "the stored value is not a list; use another key, or store a list first"),
    ],
)
def test_a_mistake_is_one_line(kvworker: Kvworker, arguments: list[str], code: int, message: str) -> None:
    kvworker("set", "n", "object", "{}")
    ran = kvworker(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert message in ran.err
    assert kvworker("get", "n", "l", "--json").json["found"] is False
