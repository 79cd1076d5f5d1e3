"""``usage``, ``quota`` and ``clear``."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Kvworker


@pytest.fixture
def filled(kvworker: Kvworker) -> Kvworker:
    for namespace, key in (("n", "a"), ("n", "b"), ("m", "k")):
        assert kvworker("set", namespace, key, "12").code == 0
    return kvworker


def test_usage_of_one_namespace_and_of_the_whole_store(filled: Kvworker) -> None:
    assert filled("usage", "n", "--json").json == {
        "namespace": "n",
        "used_bytes": 4,
        "entry_count": 2,
        "quota_bytes": 1048576,
        "entry_limit": 16384,
        "record_count": 4,
        "record_limit": 4194304,
    }
    whole = filled("usage", "--json").json
    assert (whole["namespace"], whole["used_bytes"], whole["entry_count"]) == (None, 6, 3)
    assert "1,048,576" in filled("usage", "n").out
    assert "2 of 16,384" in filled("usage", "n").out
    assert "(all)" in filled("usage").out
    assert "2 of 100,000 namespaces" in filled("usage").out


@pytest.mark.parametrize(
    ("text", "quota_bytes"), [("1000", 1000), ("2KiB", 2048), ("3MiB", 3 << 20), ("1GiB", 1 << 30)]
)
def test_quota_sets_the_quota_of_one_namespace(filled: Kvworker, text: str, quota_bytes: int) -> None:
    assert filled("quota", "n", text).out == f"the quota is {quota_bytes:,} bytes\n"
    assert filled("quota", "n", "--json").json["quota_bytes"] == quota_bytes
    assert f"{quota_bytes:,}" in filled("quota", "n").out
    assert filled("quota", "m", "--json").json["quota_bytes"] == 1048576


def test_a_quota_holds_until_it_is_reset(filled: Kvworker) -> None:
    filled("quota", "n", "4")
    refused = filled("set", "n", "c", "1")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "its quota of 4 bytes" in refused.err
    reset = ("quota", "n", "--reset", "--idempotency-key", "r")
    assert filled(*reset).out == "the configured quota applies again\n"
    assert filled(*reset, "--json").json == {"namespace": "n", "quota_bytes": None, "replayed": True}
    assert filled("set", "n", "c", "1").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["1MB"], 2, "'1MB' is not a number of bytes"),
        (["1.5MiB"], 2, "'1.5MiB' is not a number of bytes"),
        (["1" * 20], 2, "is not a number of bytes"),
        (["0"], 1, "quota_bytes must be"),
        (["9223372036854775807"], 1, "quota_bytes must be"),
        (["1000", "--reset"], 2, "BYTES and --reset exclude each other"),
    ],
)
def test_an_invalid_quota_is_one_line(filled: Kvworker, arguments: list[str], code: int, message: str) -> None:
    ran = filled("quota", "n", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert message in ran.err
    assert filled("quota", "n", "--json").json["quota_bytes"] == 1048576


def test_clear_needs_yes_without_a_terminal(filled: Kvworker) -> None:
    refused = filled("clear", "n", stdin=b"y\n")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "confirm it with --yes" in refused.err
    assert filled("usage", "n", "--json").json["entry_count"] == 2
    clear = ("clear", "n", "--yes", "--idempotency-key", "c")
    assert filled(*clear).out == "deleted 2 entries, 4 bytes\n"
    assert filled(*clear, "--json").json["replayed"] is True
    assert filled("usage", "--json").json["entry_count"] == 1


def test_clear_asks_at_a_terminal_and_shows_what_it_would_delete(filled: Kvworker) -> None:
    refused = filled("clear", "n", typed="n\n")
    assert refused.code == 1
    assert "Delete everything in namespace 'n' (2 entries, 4 bytes)? [y/N]" in refused.err
    assert refused.err.endswith("Error: nothing was deleted\n")
    assert filled("usage", "n", "--json").json["entry_count"] == 2
    cleared = filled("clear", "n", "--json", typed="y\n")
    assert cleared.json == {"namespace": "n", "deleted_entries": 2, "freed_bytes": 4, "replayed": False}


def test_the_question_escapes_control_characters(kvworker: Kvworker) -> None:
    asked = kvworker("clear", "odd\x1b[31m", typed="\n")
    assert asked.code == 1
    assert "\x1b" not in asked.err + asked.out
