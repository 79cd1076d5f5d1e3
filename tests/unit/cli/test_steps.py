"""``steps``: durable steps as rows, and unknown ones settled by one operator only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from kvworker import InlineKeyValueStore
from tests.unit.cli.conftest import Kvworker

_HOSTILE = "a\x1b]0;owned\x07\u202e[red]"


def begin(kvworker: Kvworker, key: str, *, namespace: str = "charges", **options: Any) -> int:
    """Reserve a step, and return its token."""
    operation = {"tool": "kv_step_begin", "key": key, "lease_seconds": 600, "holder": "worker-1", **options}
    ran = kvworker("batch", namespace, "-", "--json", stdin=json.dumps([operation]).encode())
    token: int = ran.json["results"][0]["token"]
    return token


def finish(kvworker: Kvworker, key: str, token: int, state: str, **options: Any) -> int:
    """End a step. Return the command's exit code."""
    operation = {"tool": "kv_step_finish", "key": key, "token": token, "state": state, **options}
    return kvworker("batch", "charges", "-", stdin=json.dumps([operation]).encode()).code


def lose(kvworker: Kvworker, key: str, **options: Any) -> int:
    """Reserve a step, and let its lease end without an outcome. Return its token."""
    token = begin(kvworker, key, **options)
    assert finish(kvworker, key, token, "unknown") == 0
    return token


@pytest.fixture
def filled(kvworker: Kvworker) -> Kvworker:
    """A step in each state, a plain entry among them, and a step of another namespace."""
    lose(kvworker, "a-lost")
    begin(kvworker, "b-held")
    finish(kvworker, "c-done", begin(kvworker, "c-done"), "done", value={"secret": 1}, ttl_seconds=600)
    finish(kvworker, "d-failed", begin(kvworker, "d-failed"), "failed", unrecorded="quota")
    kvworker("set", "charges", "e-plain", '{"$step": 2}')
    begin(kvworker, "m", namespace="mails")
    return kvworker


def names(ran_json: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(row["namespace"], row["key"], row["state"]) for row in ran_json["steps"]]


def test_list_finds_the_steps_of_all_namespaces(filled: Kvworker) -> None:
    listed = filled("steps", "list", "--json").json
    assert names(listed) == [
        ("charges", "a-lost", "unknown"),
        ("charges", "b-held", "in_progress"),
        ("charges", "c-done", "done"),
        ("charges", "d-failed", "failed"),
        ("mails", "m", "in_progress"),
    ]
    assert listed["next_cursor"] is None
    lost, held, done, failed, _ = listed["steps"]
    assert lost["lease_seconds"] == 0
    assert lost["lease_until"].endswith("+00:00")
    assert held["holder"] == "worker-1"
    assert 0 < held["lease_seconds"] <= 600
    assert (done["value_type"], done["value_bytes"], "value" in done) == ("object", 12, False)
    assert 0 < done["ttl_seconds"] <= 600
    assert failed["unrecorded"] == "quota"
    table = filled("steps", "list").out
    assert "object, 12 bytes" in table
    assert "not recorded: quota" in table
    assert "over since 20" in table
    assert "secret" not in table


@pytest.mark.parametrize("state", ["unknown", "in_progress", "done", "failed"])
def test_list_shows_the_steps_in_one_state(filled: Kvworker, state: str) -> None:
    listed = filled("steps", "list", "charges", "--state", state, "--json").json
    assert {row["state"] for row in listed["steps"]} == {state}
    assert len(listed["steps"]) == 1


def test_pages_of_all_namespaces_join_to_the_whole(filled: Kvworker) -> None:
    whole = names(filled("steps", "list", "--all", "--json").json)
    seen, options = [], ["--limit", "2"]
    while options:
        page = filled("steps", "list", *options, "--json").json
        seen += names(page)
        out = filled("steps", "list", *options).out.splitlines()[-1]
        options = ["--limit", "2", *shlex.split(out)[1:]] if page["next_cursor"] else []
    assert seen == whole
    assert names(filled("steps", "list", "charges", "--prefix", "c", "--json").json) == [("charges", "c-done", "done")]


def test_show_tells_the_shape_and_the_value_only_if_asked(filled: Kvworker) -> None:
    shown = filled("steps", "show", "charges", "c-done")
    assert "object, 12 bytes" in shown.out
    assert "secret" not in shown.out + filled("steps", "show", "charges", "c-done", "--json").out
    assert '{"secret": 1}' in filled("steps", "show", "charges", "c-done", "--value").out
    assert filled("steps", "show", "charges", "c-done", "--value", "--json").json["value"] == {"secret": 1}
    assert "another " in filled("steps", "show", "charges", "b-held").out
    absent = filled("steps", "show", "charges", "none")
    assert (absent.code, absent.out) == (1, "")
    assert filled("steps", "show", "charges", "none", "--json").json["state"] == "absent"
    assert filled("steps", "show", "charges", "e-plain").code == 1


def test_the_command_that_show_prints_settles_the_step(filled: Kvworker) -> None:
    last = filled("steps", "show", "charges", "a-lost").out.splitlines()[-1]
    command = shlex.split(last.split("kvworker ")[1].split(" --done")[0])
    assert filled(*command, "--done", "--value", '{"id": 7}').out == "the step is done\n"
    assert filled("steps", "show", "charges", "a-lost", "--value", "--json").json["value"] == {"id": 7}


def test_a_failure_is_recorded_with_its_message(filled: Kvworker) -> None:
    ran = filled("steps", "resolve", "charges", "a-lost", "--failed", "--message", "card declined", "--ttl", "60")
    assert ran.out == "the step is failed\n"
    shown = filled("steps", "show", "charges", "a-lost", "--value", "--json").json
    assert shown["value"]["message"] == "card declined"
    assert shown["ttl_seconds"] <= 60


def test_what_did_not_happen_may_run_again(filled: Kvworker) -> None:
    assert filled("steps", "resolve", "charges", "a-lost", "--not-done", "--json").json["state"] == "released"
    assert begin(filled, "a-lost") > 0
    assert filled("steps", "show", "charges", "a-lost", "--json").json["state"] == "in_progress"


def test_a_holder_that_comes_back_does_not_win_too(filled: Kvworker) -> None:
    token = filled("steps", "show", "charges", "a-lost", "--json").json["token"]
    assert filled("steps", "resolve", "charges", "a-lost", "--done", "--value", "1").code == 0
    assert finish(filled, "a-lost", token, "done", value=2) == 1
    assert filled("steps", "show", "charges", "a-lost", "--value", "--json").json["value"] == 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("b-held", "'worker-1' holds it for another"),
        ("c-done", "the step is done already"),
        ("d-failed", "the step is failed already"),
        ("none", "no durable step 'none' in namespace 'charges'"),
        ("e-plain", "is not a durable step"),
    ],
)
def test_only_an_unknown_step_is_settled(filled: Kvworker, key: str, message: str) -> None:
    before = filled("get", "charges", key, "--json").out
    ran = filled("steps", "resolve", "charges", key, "--done")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert message in ran.err
    assert filled("get", "charges", key, "--json").out == before or key == "c-done"


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (("--done", "--value", '"first"'), "the step is done already"),
        (("--not-done",), "it never began, or may run again"),
    ],
)
def test_of_two_operators_only_one_settles(
    filled: Kvworker, monkeypatch: pytest.MonkeyPatch, between: tuple[str, ...], message: str
) -> None:
    """The second operator has read the step before the first settles it."""
    call = InlineKeyValueStore.call

    def interrupted(store: InlineKeyValueStore, tool: str, *arguments: Any, **options: Any) -> Any:
        result = call(store, tool, *arguments, **options)
        if tool == "kv_step_status":
            monkeypatch.setattr(InlineKeyValueStore, "call", call)
            assert filled("steps", "resolve", "charges", "a-lost", *between).code == 0
        return result

    monkeypatch.setattr(InlineKeyValueStore, "call", interrupted)
    second = filled("steps", "resolve", "charges", "a-lost", "--done", "--value", '"second"')
    assert second.code == 1
    assert message in second.err
    shown = filled("steps", "show", "charges", "a-lost", "--value", "--json").json
    assert shown.get("value", shown["state"]) == ("first" if "--done" in between else "absent")


def test_a_step_with_another_token_stays(filled: Kvworker) -> None:
    ran = filled("steps", "resolve", "charges", "a-lost", "--done", "--token", "7")
    assert ran.code == 1
    assert "look at it again" in ran.err
    assert filled("steps", "show", "charges", "a-lost", "--json").json["state"] == "unknown"


def test_a_full_quota_does_not_keep_a_step_unknown(kvworker: Kvworker) -> None:
    lose(kvworker, "nameless", holder=None)
    kvworker("quota", "charges", "1")
    refused = kvworker("steps", "resolve", "charges", "nameless", "--done", "--value", json.dumps("x" * 500))
    assert refused.code == 1
    assert "quota" in refused.err
    assert kvworker("steps", "show", "charges", "nameless", "--json").json["state"] == "unknown"
    assert kvworker("steps", "resolve", "charges", "nameless", "--done").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resolve", "n", "k"], "say what you found, as one of --done, --failed and --not-done"),
        (["resolve", "n", "k", "--done", "--not-done"], "as one of --done, --failed and --not-done"),
        (["resolve", "n", "k", "--not-done", "--failed", "--message", "m"], "as one of --done, --failed and"),
        (["resolve", "n", "k", "--failed", "--value", "1"], "--value goes with --done only"),
        (["resolve", "n", "k", "--done", "--message", "m"], "--message goes with --failed only"),
        (["resolve", "n", "k", "--not-done", "--ttl", "5"], "--ttl goes with --done and --failed only"),
        (["list", "--all", "--limit", "1"], "--all and --limit exclude each other"),
        (["list", "--cursor", "text"], "it is not the cursor of an earlier page"),
        (["list", "n", "--cursor", '["m", "k"]'], "the --cursor is of another namespace"),
    ],
)
def test_a_mistake_is_one_line(kvworker: Kvworker, arguments: list[str], message: str) -> None:
    ran = kvworker("steps", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err


def test_names_holders_and_values_do_not_disturb_the_terminal(kvworker: Kvworker) -> None:
    lose(kvworker, _HOSTILE, holder=_HOSTILE)
    begin(kvworker, "held", holder=_HOSTILE)
    forged = {"$step": 1, "state": "reserved", "token": 1, "holder": _HOSTILE, "lease_until": -(10**30)}
    kvworker("set", "charges", "forged", json.dumps(forged))
    kvworker("set", "charges", "ended", json.dumps({"$step": 1, "state": "done", "token": 1, "unrecorded": _HOSTILE}))
    for arguments in (
        ["list"],
        ["list", "--limit", "1"],
        ["list", "--json"],
        ["show", "charges", _HOSTILE],
        ["show", "charges", "forged"],
        ["show", "charges", "ended"],
        ["resolve", "charges", "held", "--done"],
        ["resolve", "charges", _HOSTILE, "--done", "--value", json.dumps(_HOSTILE)],
        ["show", "charges", _HOSTILE, "--value"],
    ):
        ran = kvworker("steps", *arguments)
        assert ran.out + ran.err
        for line in (ran.out + ran.err).split("\n"):
            assert line.isprintable(), ascii(line)
