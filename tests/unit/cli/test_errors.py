"""Every error is one clear line on standard error, and never shows a password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kvworker.cli import main
from kvworker.cli.group import COMMANDS

PASSWORD = "hunter2-s3cret"  # noqa: S105 - a password that must not be printed


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KVWORKER_CONFIG", "ATLAS_KV_STORE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def write_config(directory: Path, **blocks: object) -> str:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(blocks))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 2, "No such command 'nope'"),
        (["get", "namespace"], 2, "Missing argument 'KEY'"),
        (["get", "n", "k", "--timeout", "soon"], 2, "'soon' is not a number of seconds"),
        (["get", "n", "k", "--timeout", "-1"], 1, "timeout must be a finite number of seconds above 0"),
        (["get", " ", "k"], 1, "namespace must not be blank"),
        (["get", "n", "k", "--config", "missing.yaml"], 1, "cannot read 'missing.yaml'"),
        (["worker", "--config", "missing.yaml"], 1, "cannot read 'missing.yaml'"),
        (["beat", "--config", "missing.yaml"], 1, "cannot read 'missing.yaml'"),
        (["set", "n", "k", "hello"], 1, """a string is '"text"'"""),
        (["set", "n", "k", "NaN"], 1, "the value is not JSON"),
        (["set", "n", "k", "1", "--ttl", "0"], 1, "ttl_seconds must be a finite number above 0"),
        (["import", "missing.jsonl"], 2, "'missing.jsonl' does not exist"),
        (["migrate"], 1, "no database is configured"),
        (["namespaces"], 1, "no database is configured"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("Error: ")
    assert message in captured.err


def test_a_missing_broker_is_reported_within_the_timeout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, queue={"broker_url": f"redis://user:{PASSWORD}@127.0.0.1:1/0"})
    assert run("get", "n", "k", "--timeout", "0.5", "--config", config) == 1
    captured = capsys.readouterr()
    assert "Connection refused.); start the broker (`kvworker up` starts a local one), or correct" in captured.err
    assert PASSWORD not in captured.out + captured.err


def test_doctor_says_what_to_fix_and_shows_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(
        tmp_path,
        queue={"broker_url": f"redis://user:{PASSWORD}@127.0.0.1:1/0"},
        tools={"kv_store": {"adapters": {"postgres": {"url": f"postgresql://user:{PASSWORD}@127.0.0.1:1/kv"}}}},
    )
    assert run("doctor", "--json", "--config", config) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["ok"] is False
    failed = {check["name"]: check["fix"] for check in report["checks"] if not check["ok"]}
    assert set(failed) == {"broker", "results", "database", "schema", "clocks", "worker"}
    assert all(failed.values())
    assert PASSWORD not in captured.out + captured.err


def test_doctor_checks_the_configuration_alone_if_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    valid = tmp_path / "kvworker.yaml"
    valid.write_text("queue: {broker_url: 'redis://127.0.0.1:1/0'}")
    assert run("doctor", "--check", "config", "--json", "--config", str(valid)) == 0
    assert [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]] == ["config"]
    valid.write_text("queue: {brokr_url: x}")
    assert run("doctor", "--check", "config", "--config", str(valid)) == 1


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        (
            {"tools": {"kv_store": {"default_adapter": "postgress"}}},
            "tools.kv_store.default_adapter: no key-value store adapter is named 'postgress'; did you mean postgres?"
            " available: postgres, sqlite",
        ),
        (
            {"policies": {"personas": {"reader": {"provider": "kv_store_sqlit"}}}},
            "policies.personas.reader.provider: no provider is named 'kv_store_sqlit'; did you mean sqlite?"
            " available: kv_store_postgres, kv_store_sqlite",
        ),
    ],
    ids=["adapter", "provider"],
)
def test_doctor_suggests_the_adapter_that_a_mistyped_name_may_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blocks: dict[str, object], told: str
) -> None:
    """The check of the configuration alone finds it, where no database can be reached. Only those that need it stop."""
    config = write_config(tmp_path, queue={"broker_url": "redis://127.0.0.1:1/0"}, **blocks)
    assert run("doctor", "--check", "config", "--json", "--config", config) == 1
    (failed,) = json.loads(capsys.readouterr().out)["checks"]
    assert failed["detail"] == told
    assert failed["fix"] == "correct it, or install the package with that adapter"
    assert run("doctor", "--check", "database", "--json", "--config", config) == 1
    assert json.loads(capsys.readouterr().out)["checks"][1]["fix"] == "fix first: config"
    assert run("doctor", "--check", "broker", "--json", "--config", config) == 1
    assert [check["ok"] for check in json.loads(capsys.readouterr().out)["checks"]] == [True, False]


def test_doctor_reports_an_invalid_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, queue={"broker_url": "http://x"}, facade={"timeout_seconds": -1})
    assert run("doctor", "--config", config) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL config")
    assert "queue.broker_url" in out
    assert "facade.timeout_seconds" in out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out
