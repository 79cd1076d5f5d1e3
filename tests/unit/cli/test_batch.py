"""``batch``: operations from a file or a pipe, atomic or per item."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Kvworker

_OPERATIONS = [
    {"tool": "kv_set", "key": "a", "value": {"é": 1}, "ttl_seconds": 60},
    {"tool": "kv_increment", "key": "c", "delta": 41},
    {"tool": "kv_increment", "key": "c"},
    {"tool": "kv_get", "key": "a"},
    {"tool": "kv_get", "key": "none"},
    {"tool": "kv_touch", "key": "c", "ttl_seconds": 5},
    {"tool": "kv_persist", "key": "a"},
    {"tool": "kv_append", "key": "l", "items": ["é", 2, 3], "max_items": 2},
    {"tool": "kv_merge", "key": "a", "patch": {"é": None}, "ttl_seconds": 5},
    {"tool": "kv_get_and_delete", "key": "l"},
    {"tool": "kv_get_and_delete", "key": "l"},
    {"tool": "kv_delete", "key": "a"},
    {"tool": "kv_delete", "key": "odd\x1b"},
]
_PRINTED = """\
operations[0] kv_set a: stored, expires in 60 s
operations[1] kv_increment c: 41
operations[2] kv_increment c: 42
operations[3] kv_get a: {"é": 1}
operations[4] kv_get none: no entry
operations[5] kv_touch c: expires in 5 s
operations[6] kv_persist a: does not expire
operations[7] kv_append l: 2 items, 1 dropped
operations[8] kv_merge a: merged, expires in 5 s
operations[9] kv_get_and_delete l: [2, 3]
operations[10] kv_get_and_delete l: no entry
operations[11] kv_delete a: deleted
operations[12] kv_delete 'odd\\x1b': no entry
13 operations, 0 refused
"""
_LINES = "\r\n\n".join(json.dumps(operation) for operation in _OPERATIONS).encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(json.dumps(_OPERATIONS, indent=2, ensure_ascii=False).encode(), id="array"),
        pytest.param(_LINES, id="lines"),
        pytest.param(b"\xef\xbb\xbf" + _LINES, id="byte-order mark"),
    ],
)
def test_a_file_can_be_an_array_or_lines(kvworker: Kvworker, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "operations").write_bytes(data)
    ran = kvworker("batch", "n", str(tmp_path / "operations"))
    assert (ran.code, ran.out, ran.err) == (0, _PRINTED, "")


def test_permits_and_rate_limits_are_described(kvworker: Kvworker) -> None:
    lease = {"key": "lease", "holder": "one"}
    rate = {"tool": "kv_rate_limit", "key": "rate", "limit": 1, "per_seconds": 60}
    operations = [
        {"tool": "kv_acquire_permit", **lease, "ttl_seconds": 60},
        {"tool": "kv_acquire_permit", **lease, "holder": "two", "ttl_seconds": 60},
        {"tool": "kv_renew_permit", **lease, "ttl_seconds": 90},
        {"tool": "kv_release_permit", **lease},
        {"tool": "kv_release_permit", **lease},
        rate,
        rate,
    ]
    ran = kvworker("batch", "n", "-", stdin=json.dumps(operations).encode())
    texts = [line.split(": ", 1)[1] for line in ran.out.splitlines()[:-1]]
    assert texts[0].startswith("token ")
    assert texts[0].endswith(", expires in 60 s")
    assert texts[1:] == [
        "held by others, again in 60 s",
        "expires in 90 s",
        "released",
        "not held",
        "allowed, 0 left",
        "not allowed, again in 60 s",
    ]


def test_a_batch_is_applied_once_per_idempotency_key(kvworker: Kvworker) -> None:
    batch = ("batch", "n", "-", "--idempotency-key", "b")
    line = b'{"tool": "kv_increment", "key": "c"}'
    first = kvworker(*batch, "--json", stdin=line).json
    assert (first["namespace"], first["replayed"], first["results"][0]["value"]) == ("n", False, 1)
    assert "(replayed: " in kvworker(*batch, stdin=line).out.splitlines()[-1]
    assert kvworker("get", "n", "c").json == 1


_HALF_REFUSED = (
    b'[{"tool": "kv_set", "key": "a", "value": 1}, {"tool": "kv_set", "key": "a", "value": 2, "if_absent": true},'
    b' {"tool": "kv_set", "key": "t", "value": "text"}, {"tool": "kv_increment", "key": "t"}]'
)


def test_an_atomic_batch_applies_all_or_nothing(kvworker: Kvworker) -> None:
    ran = kvworker("batch", "n", "-", stdin=_HALF_REFUSED)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("Error: operations[1] of the batch was refused, so nothing was changed: the entry exists")
    assert kvworker("list", "n", "--json").json["entries"] == []


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_each_refusal_of_a_batch_that_is_not_atomic_is_a_line(kvworker: Kvworker, options: list[str]) -> None:
    ran = kvworker("batch", "n", "-", "--not-atomic", *options, stdin=_HALF_REFUSED)
    assert ran.code == 1
    refusals = ran.err.splitlines()
    assert [refusal.partition(": ")[0] for refusal in refusals] == [
        "operations[1] kv_set a",
        "operations[3] kv_increment t",
    ]
    assert "the entry exists" in refusals[0]
    if options:
        assert ["error" in result for result in json.loads(ran.out)["results"]] == [False, True, False, True]
    else:
        assert ran.out == "operations[0] kv_set a: stored\noperations[2] kv_set t: stored\n4 operations, 2 refused\n"
    assert kvworker("get", "n", "a").json == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a batch has 1 to 1000 operations, not 0"),
        (b"[]", "a batch has 1 to 1000 operations, not 0"),
        (b'[{"tool": "kv_get", "key": "k"}', "FILE is not JSON: Expecting ',' delimiter: line 1"),
        (b'{"tool": "kv_get", "key": "k"}\nnonsense', "line 2 of FILE is not JSON"),
        (b"\xff", "line 1 of FILE is not JSON"),
        (b"[" * 100_000, "FILE is not JSON: maximum recursion depth"),
        (b"1", "operations[0]: it must be an object"),
        (b'[{"tool": "kv_clear"}]', "operations[0]: its tool must be one of kv_get"),
        (b'[{"tool": "kv_get", "key": "k", "namespace": "m"}]', "operations[0]: kv_get takes no argument 'namespace'"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--not-atomic"]])
def test_an_invalid_batch_is_one_line(kvworker: Kvworker, data: bytes, message: str, options: list[str]) -> None:
    ran = kvworker("batch", "n", "-", *options, stdin=data)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert message in ran.err


def test_a_missing_file_is_one_line(kvworker: Kvworker) -> None:
    ran = kvworker("batch", "n", "missing.json")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "'missing.json': No such file or directory" in ran.err
