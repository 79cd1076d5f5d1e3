"""``list``: pages with cursors, and tables that cannot disturb the terminal."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys

import pytest

from tests.unit.cli.conftest import Kvworker

_HOSTILE = "[red]\x1b[31m'\\\u202e é"


@pytest.fixture
def filled(kvworker: Kvworker) -> Kvworker:
    """Three keys in one namespace, one of them hostile, and one key in another namespace."""
    for namespace, key, value in (
        ("n", "a1", "1"),
        ("n", "a2", '"[red]\u009b"'),
        ("n", _HOSTILE, "3"),
        ("m", "k", "4"),
    ):
        assert kvworker("set", namespace, key, value).code == 0
    return kvworker


def test_a_page_shows_the_cursor_of_the_next(filled: Kvworker) -> None:
    first = filled("list", "n", "--prefix", "a", "--limit", "1").out.splitlines()
    assert "a1" in first[3]
    assert first[-1] == "more: --cursor a1"
    last = filled("list", "n", "--prefix", "a", *shlex.split(first[-1])[1:]).out
    assert "a2" in last
    assert "a1" not in last
    assert "more:" not in last


def test_a_page_as_json_is_the_tools_result(filled: Kvworker) -> None:
    page = filled("list", "n", "--prefix", "a", "--limit", "1", "--json").json
    assert page["next_cursor"] == "a1"
    assert [entry["key"] for entry in page["entries"]] == ["a1"]
    assert "value" not in page["entries"][0]
    page = filled("list", "n", "--prefix", "a", "--cursor", "a1", "--values", "--json").json
    assert page["next_cursor"] is None
    assert [(entry["key"], entry["value"]) for entry in page["entries"]] == [("a2", "[red]\u009b")]


def test_names_and_values_do_not_disturb_the_terminal(filled: Kvworker) -> None:
    out = filled("list", "n", "--values").out
    assert "\x1b" not in out
    assert "\u009b" not in out
    assert "\u202e" not in out
    assert ascii(_HOSTILE) in out
    assert r'"[red]\u009b"' in out


def test_a_table_is_escaped_if_the_output_cannot_encode_it(kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch) -> None:
    kvworker("set", "ναμε", "κεψ", '"ü€"')
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert kvworker("list", "ναμε", "--values").code == 0
    out = written.getvalue().decode("latin-1")
    assert ascii("κεψ") in out
    assert r'"\u00fc\u20ac"' in out


@pytest.mark.parametrize("cursor", [_HOSTILE, "two words", "-x", "$HOME", "é"])
def test_a_cursor_can_be_pasted_into_a_shell(kvworker: Kvworker, cursor: str) -> None:
    kvworker("set", "n", "--", cursor, "1")
    kvworker("set", "n", "\U0010ffff", "2")
    line = kvworker("list", "n", "--limit", "1").out.splitlines()[-1]
    assert "\x1b" not in line
    pasted = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, env={"HOME": "/elsewhere"}
    )
    words = pasted.stdout.decode().split("\0")[:-1]
    assert words == ["more:", "--cursor", cursor]
    assert [entry["key"] for entry in kvworker("list", "n", "--json", *words[1:]).json["entries"]] == ["\U0010ffff"]


def test_all_follows_the_pages(kvworker: Kvworker) -> None:
    keys = [f"{number:04}" for number in range(1001)]
    for some in (keys[:1000], keys[1000:]):
        operations = json.dumps([{"tool": "kv_set", "key": key, "value": 0} for key in some])
        assert kvworker("batch", "many", "-", stdin=operations.encode()).code == 0
    listing = kvworker("list", "many", "--all", "--json").json
    assert [entry["key"] for entry in listing["entries"]] == keys
    assert listing["next_cursor"] is None
    assert "more:" not in kvworker("list", "many", "--all").out
    assert len(kvworker("list", "many", "--all", "--cursor", "0998", "--json").json["entries"]) == 2
    assert kvworker("list", "many").out.splitlines()[-1] == "more: --cursor 0099"


def test_a_long_value_is_cut_and_marked(kvworker: Kvworker) -> None:
    kvworker("set", "n", "k", json.dumps("x" * 500), "--ttl", "60")
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in kvworker("list", "n", "--values").out.split("\n")
    ]
    value = "".join(row[-1] for row in cells if row)
    assert value == '"' + "x" * 199 + "..."
    assert kvworker("list", "n", "--values", "--json").json["entries"][0]["value"] == "x" * 500


def test_without_a_namespace_it_lists_namespaces(filled: Kvworker) -> None:
    page = filled("list", "--limit", "1", "--json").json
    assert page["next_cursor"] == "m"
    (listed,) = page["namespaces"]
    assert (listed["namespace"], listed["used_bytes"], listed["entry_count"]) == ("m", 1, 1)
    assert (listed["quota_bytes"], listed["entry_limit"]) == (1048576, 16384)
    out = filled("list", "--limit", "1").out
    assert "1,048,576" in out
    assert out.splitlines()[-1] == "more: --cursor m"
    assert [entry["namespace"] for entry in filled("list", "--all", "--json").json["namespaces"]] == ["m", "n"]
    assert [entry["namespace"] for entry in filled("list", "--prefix", "n", "--json").json["namespaces"]] == ["n"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--values"], 2, "--values needs a NAMESPACE"),
        (["n", "--all", "--limit", "5"], 2, "--all and --limit exclude each other"),
        (["n", "--limit", "0"], 1, "limit must be"),
    ],
)
def test_a_mistake_is_one_line(kvworker: Kvworker, options: list[str], code: int, message: str) -> None:
    ran = kvworker("list", *options)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert message in ran.err
