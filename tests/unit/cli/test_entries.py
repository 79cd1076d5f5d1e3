"""``set`` and ``delete`` with conditions, ``touch`` and ``persist``."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Kvworker


def test_set_if_absent_refuses_an_existing_entry(kvworker: Kvworker) -> None:
    assert kvworker("set", "n", "k", "1", "--if-absent").out == "stored\n"
    refused = kvworker("set", "n", "k", "2", "--if-absent")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("Error: the entry exists, at version ")
    assert refused.err.count("\n") == 1
    assert kvworker("get", "n", "k").json == 1


@pytest.mark.parametrize("command", [["set", "n", "k", "2"], ["delete", "n", "k"]])
def test_a_write_at_another_version_is_refused(kvworker: Kvworker, command: list[str]) -> None:
    old = kvworker("set", "n", "k", "0", "--json").json["version"]
    kvworker("set", "n", "k", "1")
    refused = kvworker(*command, "--expected-version", str(old))
    assert refused.code == 1
    assert f"not at the expected version {old}" in refused.err
    read = kvworker("get", "n", "k", "--json").json
    assert read["value"] == 1
    assert kvworker(*command, "--expected-version", str(read["version"])).code == 0
    assert kvworker("get", "n", "k", "--json").json.get("value") != 1


def test_set_keeps_the_expiry_only_with_keep_ttl(kvworker: Kvworker) -> None:
    assert kvworker("set", "n", "k", "1", "--ttl", "600").out == "stored, expires in 600 s\n"
    assert kvworker("set", "n", "k", "2", "--keep-ttl").out.startswith("stored, expires in ")
    assert 500 < kvworker("get", "n", "k", "--json").json["ttl_seconds"] <= 600
    assert kvworker("set", "n", "k", "3").out == "stored\n"
    assert "ttl_seconds" not in kvworker("get", "n", "k", "--json").json


@pytest.mark.parametrize(
    "options", [["--ttl", "1", "--keep-ttl"], ["--if-absent", "--expected-version", "1"]], ids=["expiry", "condition"]
)
def test_contradictory_options_are_one_line(kvworker: Kvworker, options: list[str]) -> None:
    ran = kvworker("set", "n", "k", "1", *options)
    assert ran.code == 1
    assert "contradict each other" in ran.err
    assert ran.err.count("\n") == 1
    assert kvworker("get", "n", "k", "--json").json["found"] is False


@pytest.mark.parametrize("command", [["touch", "n", "k", "5"], ["persist", "n", "k"]])
def test_a_change_of_expiry_can_expect_a_version(kvworker: Kvworker, command: list[str]) -> None:
    version = kvworker("set", "n", "k", "0", "--ttl", "60", "--json").json["version"]
    refused = kvworker(*command, "--expected-version", str(version + 1))
    assert refused.code == 1
    assert f"not at the expected version {version + 1}" in refused.err
    assert kvworker("get", "n", "k", "--json").json["ttl_seconds"] > 10
    assert kvworker(*command, "--expected-version", str(version)).code == 0


def test_touch_and_persist_change_only_the_expiry(kvworker: Kvworker) -> None:
    written = kvworker("set", "n", "k", '"v"', "--json").json
    assert kvworker("touch", "n", "k", "90.5", "--idempotency-key", "t").out == "expires in 90.5 s\n"
    assert "(replayed: " in kvworker("touch", "n", "k", "90.5", "--idempotency-key", "t").out
    read = kvworker("get", "n", "k", "--json").json
    assert (read["value"], read["version"]) == ("v", written["version"])
    assert 80 < read["ttl_seconds"] <= 90.5
    assert kvworker("persist", "n", "k").out == "does not expire\n"
    assert "ttl_seconds" not in kvworker("get", "n", "k", "--json").json


@pytest.mark.parametrize("command", [["touch", "n", "k", "5"], ["persist", "n", "k"]])
def test_a_miss_is_xx_get_says_it(kvworker: Kvworker, command: list[str]) -> None:
    ran = kvworker(*command)
    assert (ran.code, ran.out, ran.err) == (1, "", "Error: no entry 'k' in namespace 'n'\n")
    assert ran == kvworker("get", "n", "k")
    assert kvworker(*command, "--json").json == {"namespace": "n", "key": "k", "found": False, "replayed": False}
