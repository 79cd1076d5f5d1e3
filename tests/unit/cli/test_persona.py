"""Every command that calls a tool acts as the named persona, or else as the default persona."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.unit.cli.conftest import Kvworker

_STEP = b'{"tool": "kv_get", "key": "k"}'


@pytest.mark.parametrize(
    "command",
    [
        ["get", "n", "k"],
        ["set", "n", "k", "1"],
        ["delete", "n", "k"],
        ["increment", "n", "c"],
        ["touch", "n", "k", "5"],
        ["persist", "n", "k"],
        ["append", "n", "l", "1"],
        ["merge", "n", "o", "{}"],
        ["pop", "n", "k"],
        ["list", "n"],
        ["list"],
        ["steps", "list"],
        ["steps", "show", "n", "step", "--json"],
        ["batch", "n", "-"],
        ["usage", "n"],
        ["quota", "n"],
        ["quota", "n", "1000"],
        ["clear", "n", "--yes"],
    ],
    ids=" ".join,
)
def test_a_persona_without_rights_is_denied(kvworker: Kvworker, tmp_path: Path, command: list[str]) -> None:
    assert kvworker("set", "n", "k", "0").code == 0
    data = yaml.safe_load(Path(os.environ["KVWORKER_CONFIG"]).read_text())
    flags = ["type.system.kv_store_access", "type.system.kv_store_write", "type.system.kv_store_admin"]
    data["policies"] = {"default_persona": "all", "personas": {"all": {"flags": flags}, "none": {}}}
    config = tmp_path / "policies.yaml"
    config.write_text(yaml.safe_dump(data))
    denied = kvworker(*command, "--persona", "none", "--config", str(config), stdin=_STEP)
    assert (denied.code, denied.out, denied.err.count("\n")) == (1, "", 1)
    assert denied.err.startswith("Error: persona 'none' may not use kv_")
    assert kvworker("get", "n", "k").json == 0
    assert kvworker(*command, "--config", str(config), stdin=_STEP).code == 0
