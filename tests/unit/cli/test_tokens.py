"""``kvworker tokens`` makes, lists and revokes the tokens of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvworker.access import TokenFile
from tests.unit.cli.conftest import Kvworker


@pytest.fixture
def path(tmp_path: Path, kvworker: Kvworker) -> Path:
    """The file that the configuration names, relative to itself."""
    config = tmp_path / "kvworker.yaml"
    policies = {"tokens_file": "access/tokens", "personas": {"reader": {"flags": ["type.system.kv_store_access"]}}}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "policies": policies}))
    return tmp_path / "access" / "tokens"


def test_a_token_is_printed_once_listed_and_revoked(kvworker: Kvworker, path: Path) -> None:
    created = kvworker(
        "tokens", "create", "ci", "--persona", "reader", "--namespace-prefix", "ci", "--expires-days", "2"
    )
    token = created.out.strip()
    assert (created.code, created.err) == (0, f"its hash is in {path}; keep the token, since it is not shown again\n")
    grant = TokenFile(path).find(token)
    assert grant is not None
    assert (grant.persona, grant.namespace_prefix) == ("reader", "ci")
    kvworker("tokens", "create", "plain")
    listed = kvworker("tokens", "list", "--json")
    assert [(each["name"], each["persona"]) for each in listed.json] == [("ci", "reader"), ("plain", None)]
    table = kvworker("tokens", "list")
    assert "never" in table.out
    for shown in (listed.out, table.out):
        assert grant.token_sha256 not in shown
        assert token not in shown
    assert kvworker("tokens", "revoke", "ci").code == 0
    assert TokenFile(path).find(token) is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["create", "ci", "--persona", "unknown"], "policies.personas: no persona is named 'unknown'"),
        (["create", "a b"], "the token.name: string should match pattern"),
        (["create", "ci", "--namespace-prefix", "a/b"], "must not hold '/'"),
        (["create", "ci", "--namespace-prefix", ""], "a namespace prefix must also be a valid namespace"),
        (["create", "ci", "--namespace-prefix", " "], "a namespace prefix must also be a valid namespace"),
        (["create", "ci", "--persona", ""], "no persona is named ''"),
        (["create", "ci", "--expires-days", "-1"], "-1"),
        (["create", "ci", "--expires-days", "nan"], "'nan' is not a number"),
        (["revoke", "ci"], "has no token named 'ci'"),
        (["list"], "kvworker tokens create"),
    ],
)
@pytest.mark.usefixtures("path")
def test_mistakes_are_told_in_a_line(kvworker: Kvworker, arguments: list[str], problem: str) -> None:
    ran = kvworker("tokens", *arguments)
    assert ran.code in {1, 2}
    assert ran.out == ""
    assert problem in ran.err
    assert ran.err.count("\n") == 1


def test_without_a_named_file_there_is_advice(kvworker: Kvworker, tmp_path: Path) -> None:
    assert "set policies.tokens_file, or give --tokens FILE" in kvworker("tokens", "list").err
    named = tmp_path / "named"
    token = kvworker("tokens", "create", "ci", "--tokens", str(named)).out.strip()
    assert TokenFile(named).find(token) is not None
