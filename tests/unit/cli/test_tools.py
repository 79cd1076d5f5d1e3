"""``kvworker tools`` prints definitions; ``kvworker mcp`` refuses wrong options in one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvworker import Settings
from kvworker.access import TokenStore
from kvworker.cli import main
from kvworker.tools import TOOLS
from kvworker.tools.manifest import anthropic_tools, gemini_tools, manifest_entries, mcp_tools, openai_tools

POLICIES = {"personas": {"reader": {"flags": ["type.system.kv_store_access"], "provider": "kv_store_sqlite"}}}


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KVWORKER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


REMOTE = ["mcp", "--transport", "http", "--allow-remote"]
OAUTH = "oauth.yaml"


@pytest.fixture(autouse=True)
def _oauth_configuration(_no_configuration: None) -> None:
    oauth = {
        "issuer": "https://id.example",
        "audience": "https://kv.example/mcp",
        "jwks_url": "https://id.example/keys",
    }
    Path(OAUTH).write_text(yaml.safe_dump({"policies": {"oauth": oauth}}))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def write_config(**blocks: object) -> str:
    path = Path("config.yaml")
    path.write_text(yaml.safe_dump(blocks))
    return str(path)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("manifest", manifest_entries(Settings())),
        ("openai", openai_tools(TOOLS.values())),
        ("anthropic", anthropic_tools(TOOLS.values())),
        ("gemini", gemini_tools(TOOLS.values())),
        ("mcp", mcp_tools(TOOLS.values())),
    ],
)
def test_tools_prints_every_format(capsys: pytest.CaptureFixture[str], kind: str, expected: list[Any]) -> None:
    assert run("tools", "--format", kind) == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_tools_prints_the_manifest_of_a_persona(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tools", "--persona", "reader", "--config", write_config(policies=POLICIES)) == 0
    entries = json.loads(capsys.readouterr().out)
    assert "kv_set" not in {entry["name"] for entry in entries}
    assert entries[0]["providers"][0] == {"name": "kv_store_sqlite", "adapter": "sqlite", "default": True}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tools", "--format", "xml"], 2, "'xml' is not one of"),
        (["tools", "--persona", "unknown"], 1, "no persona is named 'unknown'"),
        (["mcp", "--persona", "unknown"], 1, "no persona is named 'unknown'"),
        (["mcp", "--namespace-prefix", "a/b"], 1, "must not hold '/'"),
        (["mcp", "--namespace-prefix", "a", "--session-prefix"], 2, "exclude each other"),
        (["mcp", "--config", "missing.yaml"], 1, "cannot read 'missing.yaml'"),
        (["mcp", "--transport", "http", "--host", "0.0.0.0"], 2, "add --allow-remote"),  # noqa: S104 - it is refused
        (["mcp", "--transport", "http", "--host", "0"], 2, "add --allow-remote"),
        (["mcp", "--transport", "http", "--host", "192.0.2.1"], 2, "add --allow-remote"),
        (["mcp", "--transport", "http", "--host", ""], 1, "cannot listen on ''"),
        ([*REMOTE, "--host", "192.0.2.1"], 2, "make them with `kvworker tokens create`"),
        ([*REMOTE, "--host", "192.0.2.1", "--tokens", "missing"], 1, "cannot read the tokens in missing: No such file"),
        ([*REMOTE, "--host", "::", "--tokens", os.devnull], 1, "/dev/null"),
        ([*REMOTE, "--host", "::", "--config", OAUTH], 1, "with --allowed-host"),
        ([*REMOTE, "--host", "0x0", "--config", OAUTH], 1, "with --allowed-host"),
        ([*REMOTE, "--host", "192.0.2.1", "--config", OAUTH], 1, "cannot listen on '192.0.2.1'"),
        (["mcp", "--transport", "http", "--port", "65536"], 2, "65536"),
        (["mcp", "--transport", "http", "--trusted-proxy", "*"], 2, "'*' is not an IP address or a network"),
        (["mcp", "--transport", "http", "--trusted-proxy", "proxy.example"], 2, "is not an IP address or a network"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_the_server_needs_a_persona_if_policies_are_enforced(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mcp", "--config", write_config(policies=POLICIES)) == 1
    assert "name it with --persona" in capsys.readouterr().err


def test_a_persona_without_a_namespace_under_the_prefix_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    persona = {"flags": ["type.system.kv_store_access"], "namespaces": {"notes": ["read"]}}
    config = write_config(policies={"default_persona": "notes", "personas": {"notes": persona}})
    for options, pattern in ((["--namespace-prefix", "agent"], "agent/*"), (["--session-prefix"], "mcp-session-*")):
        assert run("mcp", "--config", config, *options) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"it needs one such as '{pattern}'" in error


def test_a_token_that_could_not_be_served_keeps_the_server_from_starting(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = TokenStore(Path("tokens"))
    tokens.create("agent", persona="unknown", namespace_prefix=None, expires_at=None)
    config = write_config(policies={**POLICIES, "tokens_file": "tokens"})
    assert run("mcp", "--transport", "http", "--config", config) == 1
    assert capsys.readouterr().err == (
        f"Error: the token 'agent' of {tokens.path.absolute()}: policies.personas: no persona is named 'unknown'\n"
    )
    tokens.revoke("agent")
    tokens.create("agent", persona=None, namespace_prefix=None, expires_at=None)
    assert run("mcp", "--transport", "http", "--config", config) == 1
    assert "tokens: policies are enforced" in capsys.readouterr().err


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert run("mcp") == 1
    assert capsys.readouterr().err == (
        "Error: the MCP server needs the extra `mcp`: run `pip install '.[mcp]'` in a copy of kvworker's repository\n"
    )
