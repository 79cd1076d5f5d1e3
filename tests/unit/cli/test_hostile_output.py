"""Names, values and errors from outside in a command's output: none of them controls a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvworker import InlineKeyValueStore
from kvworker.cli import transfer
from kvworker.errors import KVStoreError
from kvworker.ops import doctor
from tests.unit.cli.conftest import Kvworker, Ran

# An escape sequence of each kind: C0, DEL, C1, a bidirectional control, and line separators.
_HOSTILE = "a\x1b]0;owned\x07\x7f\x9b2J\u202e\x85\u2028b"


def check_harmless(ran: Ran) -> None:
    for line in (ran.out + ran.err).split("\n"):
        assert line.isprintable(), ascii(line)


@pytest.fixture
def filled(kvworker: Kvworker) -> Kvworker:
    assert kvworker("set", "n", "k", json.dumps(_HOSTILE)).code == 0
    assert kvworker("set", _HOSTILE, _HOSTILE, json.dumps({_HOSTILE: "日本"})).code == 0
    return kvworker


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["get", "n", "k"], _HOSTILE),
        (["get", _HOSTILE, _HOSTILE], {_HOSTILE: "日本"}),
    ],
)
def test_get_prints_a_value_as_harmless_json(filled: Kvworker, arguments: list[str], value: object) -> None:
    ran = filled(*arguments)
    check_harmless(ran)
    assert ran.json == value
    as_json = filled(*arguments, "--json")
    check_harmless(as_json)
    assert as_json.json["value"] == value


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["list", "n", "--values"],
        ["list", "n", "--values", "--json"],
        ["usage", _HOSTILE],
        ["namespaces"],
        ["export"],
        ["get", _HOSTILE, "none"],
        ["clear", _HOSTILE],
        ["config", "show", "--config", f"{_HOSTILE}.yaml"],
        ["import", f"{_HOSTILE}.jsonl"],
        ["get", "n", "k", "--persona", _HOSTILE],
        [_HOSTILE],
        ["get", f"--{_HOSTILE}"],
        ["get", "n", "k", "--timeout", _HOSTILE],
        ["quota", "n", _HOSTILE],
    ],
)
def test_no_output_and_no_error_disturbs_the_terminal(filled: Kvworker, arguments: list[str]) -> None:
    ran = filled(*arguments)
    check_harmless(ran)
    assert ran.out + ran.err


def test_an_export_is_harmless_and_holds_the_same_entries(filled: Kvworker) -> None:
    entries = [json.loads(line) for line in filled("export").out.split("\n")[:-1]]
    assert {entry["key"]: entry["value"] for entry in entries} == {"k": _HOSTILE, _HOSTILE: {_HOSTILE: "日本"}}


def test_refused_lines_of_an_import_are_escaped(
    kvworker: Kvworker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "KeyValueStore", InlineKeyValueStore)
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"namespace": "n", "key": "k", "value": 1, _HOSTILE: 1}) + "\n")
    ran = kvworker("import", str(file))
    assert ran.code == 1
    assert "line 1: " in ran.err
    check_harmless(ran)


def test_refusals_in_a_batch_are_escaped(filled: Kvworker) -> None:
    operation = {"tool": "kv_increment", "key": _HOSTILE, "idempotency_key": "i"}
    ran = filled("batch", _HOSTILE, "-", "--not-atomic", stdin=json.dumps([operation]).encode())
    assert ran.code != 0
    check_harmless(ran)


def test_an_error_with_the_text_of_another_process_is_escaped(
    kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KVStoreError(f"{_HOSTILE}\nError: forged")

    monkeypatch.setattr(InlineKeyValueStore, "call", fail)
    ran = kvworker("get", "n", "k")
    check_harmless(ran)
    assert ran.err.splitlines()[1] == "  Error: forged"


def test_the_doctor_escapes_what_it_found(kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.Finding("worker", ok=False, detail=_HOSTILE, fix=_HOSTILE)
    monkeypatch.setattr("kvworker.cli.doctor.check_deployment", lambda *_: [found])
    check_harmless(kvworker("doctor"))
