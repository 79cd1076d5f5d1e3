"""``dashboard`` where it must not, or cannot, serve. Other tests run it."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Kvworker


@pytest.mark.parametrize("options", [[], ["--allow-remote"], ["--tokens", "tokens"]], ids=str)
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])  # noqa: S104 - it is refused
def test_other_machines_need_the_option_and_tokens(kvworker: Kvworker, host: str, options: list[str]) -> None:
    ran = kvworker("dashboard", "--host", host, *options)
    assert (ran.code, ran.out) == (2, "")
    assert f"other machines can reach --host {host}, so viewers need tokens" in ran.err


def test_every_interface_needs_a_host_name(kvworker: Kvworker, tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    assert kvworker("tokens", "create", "ann", "--tokens", tokens).code == 0
    ran = kvworker("dashboard", "--host", "0.0.0.0", "--allow-remote", "--tokens", tokens)  # noqa: S104 - it is refused
    assert (ran.code, ran.out) == (1, "")
    assert "name the hosts that clients may use with --allowed-host" in ran.err


def test_a_port_that_is_taken_is_one_line(kvworker: Kvworker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ran = kvworker("dashboard", "--port", str(server.getsockname()[1]))
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "Address already in use" in ran.err


def test_a_missing_file_of_tokens_is_one_line(kvworker: Kvworker) -> None:
    missing = kvworker("dashboard", "--port", "0", "--tokens", "missing")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert "cannot read the tokens in missing" in missing.err


def test_a_blank_persona_does_not_mean_the_default_one(kvworker: Kvworker) -> None:
    ran = kvworker("dashboard", "--port", "0", "--persona", "")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "persona must be a non-blank string" in ran.err


def test_a_missing_extra_is_one_line(kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_jinja(name: str, package: str | None = None) -> Any:
        return None if name == "jinja2" else find_spec(name, package)

    monkeypatch.setattr("kvworker.cli.dashboard.find_spec", without_jinja)
    ran = kvworker("dashboard")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "the dashboard needs the extra `dashboard`" in ran.err
