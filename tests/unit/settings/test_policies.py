"""The ``policies`` block: what it accepts, and one clear line for each problem."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvworker.errors import ConfigurationError
from kvworker.settings import PersonaSettings, PoliciesSettings, Settings

ROOT = Path(__file__).parents[3]
SECRET = "s3cr3t-and-long-enough"  # noqa: S105 - must not be printed
ACCESS = "type.system.kv_store_access"


def policies(block: object, **environ: str) -> PoliciesSettings:
    return Settings.from_mapping({"policies": block}, environ=environ).policies


def refusal(block: object, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        policies(block, **environ)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def personas(**blocks: object) -> dict[str, Any]:
    return {"personas": blocks}


def test_a_whole_block() -> None:
    researcher = {
        "flags": [ACCESS, "host.other"],
        "namespaces": {"research.*": ["read", "write"], "shared.*": ["read"]},
        "provider": "kv_store_sqlite",
    }
    block = {"default_persona": "researcher", "signing_key": SECRET, "personas": {"researcher": researcher}}
    read = policies(block)
    assert read.default_persona == "researcher"
    assert read.signing_key is not None
    assert read.signing_key.get_secret_value() == SECRET
    assert read.personas == {
        "researcher": PersonaSettings(
            flags=(ACCESS, "host.other"),
            namespaces={"research.*": ("read", "write"), "shared.*": ("read",)},
            provider="kv_store_sqlite",
        )
    }


def test_defaults_of_a_persona() -> None:
    read = policies(personas(nothing=None, everywhere={"flags": [ACCESS]}, nowhere={"namespaces": {}})).personas
    assert read["nothing"] == PersonaSettings(flags=(), namespaces=None, provider=None)
    assert read["everywhere"].namespaces is None
    assert read["nowhere"].namespaces == {}


@pytest.mark.parametrize("blank", [None, "", {}, {"personas": None, "signing_key": " ", "personas_file": ""}])
def test_a_blank_block_counts_as_omitted(blank: object) -> None:
    assert policies(blank) == PoliciesSettings()


_LIST = "it should be a list, such as"
_PERSONA = "policies.personas.p"


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("x", "policies: it should be a mapping (key: value), not a str"),
        (["x"], "policies: it should be a mapping (key: value), not a list"),
        (
            {"persona": {}},
            "policies.persona: unknown key; did you mean personas?"
            " known here: default_persona, signing_key, previous_signing_keys, security_key,"
            " security_certificate, security_cert_store, tokens_file, oauth, personas_file, personas",
        ),
        (personas(), "policies.personas: there is none; name at least one, or leave the key out to allow everything"),
        ({"personas": ["p"]}, "policies.personas: it should be a mapping (key: value), not a list"),
        (
            {"personas": {1: {}}},
            "policies.personas: a persona's name should be a string that is not blank, not 1; quote it",
        ),
        (
            {"personas": {" ": {}}},
            "policies.personas: a persona's name should be a string that is not blank, not ' '; quote it",
        ),
        (personas(p=[ACCESS]), f"{_PERSONA}: it should be a mapping (key: value), not a list"),
        (
            personas(p={"flag": [ACCESS]}),
            f"{_PERSONA}.flag: unknown key; did you mean flags? known here: flags, namespaces, provider",
        ),
        (personas(p={"flags": ACCESS}), f"{_PERSONA}.flags: {_LIST} [{ACCESS}], not '{ACCESS}'"),
        (personas(p={"flags": [1]}), f"{_PERSONA}.flags.0: it should be text, not 1; write '1' with quotes"),
        (personas(p={"flags": [ACCESS, " "]}), f"{_PERSONA}.flags.1: it should not be blank, not ' '"),
        (
            personas(p={"namespaces": ["a"]}),
            f"{_PERSONA}.namespaces: it should be a mapping of patterns to rights,"
            ' such as "research.*": [read, write], not a list',
        ),
        (
            personas(p={"namespaces": None}),
            f"{_PERSONA}.namespaces: it is blank; leave it out for every namespace, or write {{}} for none",
        ),
        (
            personas(p={"namespaces": {"a.*": "read"}}),
            f"{_PERSONA}.namespaces.a.*: {_LIST} [read, write], not 'read'",
        ),
        (personas(p={"namespaces": {"a.*": None}}), f"{_PERSONA}.namespaces.a.*: {_LIST} [read, write], not None"),
        (
            personas(p={"namespaces": {"a.*": ["read", "delete"]}}),
            f"{_PERSONA}.namespaces.a.*.1: it should be 'read' or 'write', not 'delete'",
        ),
        (personas(p={"namespaces": {" ": []}}), f"{_PERSONA}.namespaces. .[key]: it should not be blank, not ' '"),
        (personas(p={"provider": 5}), f"{_PERSONA}.provider: it should be text, not 5; write '5' with quotes"),
        ({"default_persona": 5}, "policies.default_persona: it should be text, not 5; write '5' with quotes"),
        (
            {"default_persona": "q"},
            "policies.default_persona: no persona is named 'q'; there are no personas",
        ),
        (
            {"default_persona": "q", "personas": {"b": {}, "a": {}}},
            "policies.default_persona: no persona is named 'q'; the personas are a, b",
        ),
        (
            {"signing_key": SECRET[:15]},
            "policies.signing_key: it should be at least 16 bytes long, such as `openssl rand -hex 32` prints",
        ),
        ({"signing_key": 12345678901234567890}, "policies.signing_key: it should be a string; put it in quotes"),
        ({"signing_key": [SECRET]}, "policies.signing_key: it should be a string; put it in quotes"),
        ({"signing_key": {SECRET: SECRET}}, "policies.signing_key: it should be a string; put it in quotes"),
        ({"signing_key": "\ud800" * 16}, "policies.signing_key: it should be UTF-8 text"),
        (
            {"signing-key": SECRET},
            "policies.signing-key: unknown key; did you mean signing_key?"
            " known here: default_persona, signing_key, previous_signing_keys, security_key,"
            " security_certificate, security_cert_store, tokens_file, oauth, personas_file, personas",
        ),
        (
            {"oauth": {"issuer": "https://id", "audience": "https://kv", "jwks_url": "https://id/k", "scopes": ""}},
            "policies.oauth.scopes: it is blank; leave it out if it should limit no token",
        ),
        ({"personas_file": 5}, "policies.personas_file: it should be text, not 5; write '5' with quotes"),
        (
            {"personas_file": "/nowhere/personas.yaml"},
            "policies.personas_file: cannot read '/nowhere/personas.yaml': No such file or directory",
        ),
    ],
)
def test_one_problem_is_one_exact_line(block: object, line: str) -> None:
    assert refusal(block) == line


def test_every_problem_is_listed_at_once() -> None:
    block = {
        "signing_key": "short",
        "personas": {"p": {"flags": 1, "provder": "x"}, "q": {"namespaces": ""}},
        "personas_file": "/nowhere",
    }
    paths = [line.partition(": ")[0] for line in refusal(block).splitlines()]
    assert sorted(paths) == sorted(
        [
            "policies.signing_key",
            "policies.personas.p.flags",
            "policies.personas.p.provder",
            "policies.personas.q.namespaces",
            "policies.personas_file",
        ]
    )


def test_the_environment_gives_the_key_where_the_file_does_not() -> None:
    other = "another-key-that-is-long"
    for block, key in (({}, other), (None, other), ({"signing_key": SECRET}, SECRET)):
        read = policies(block, KVWORKER_SIGNING_KEY=f" {other}\n")
        assert read.signing_key is not None
        assert read.signing_key.get_secret_value() == key
    assert policies({}, KVWORKER_SIGNING_KEY="  ").signing_key is None


def test_previous_keys_come_from_a_list_or_from_lines() -> None:
    other, third = "another-key-that-is-long", "a-third-key-that-is-long"
    listed = policies({"signing_key": SECRET, "previous_signing_keys": [other, third]})
    lines = policies({"signing_key": SECRET}, KVWORKER_PREVIOUS_SIGNING_KEYS=f"\n{other} \n\n{third}\n")
    assert listed == lines
    assert [key.get_secret_value() for key in lines.accepted_signing_keys] == [SECRET, other, third]
    assert policies({}).accepted_signing_keys == ()


def test_previous_keys_are_checked_and_not_shown() -> None:
    line = refusal({"signing_key": SECRET, "previous_signing_keys": [SECRET, SECRET[:15]]})
    assert line.startswith("policies.previous_signing_keys.1: it should be at least 16 bytes long")
    line = refusal({"signing_key": SECRET}, KVWORKER_PREVIOUS_SIGNING_KEYS=f"{SECRET}\n{SECRET[:15]}")
    assert line.startswith("KVWORKER_PREVIOUS_SIGNING_KEYS: it should be at least 16 bytes long")
    assert SECRET[:15] not in line
    line = refusal({"previous_signing_keys": [SECRET]})
    assert line == "policies.previous_signing_keys: they have no effect without policies.signing_key"
    mapping = {"policies": {"signing_key": "k" * 16, "previous_signing_keys": [SECRET]}}
    read = Settings.from_mapping(mapping)
    assert SECRET not in repr(read)
    assert read.to_mapping()["policies"]["previous_signing_keys"] == (SECRET,)
    assert Settings.from_mapping(read.to_mapping()) == read


def test_an_error_about_a_key_in_the_environment_names_the_variable() -> None:
    line = refusal({}, KVWORKER_SIGNING_KEY=SECRET[:15])
    assert line.startswith("KVWORKER_SIGNING_KEY: it should be at least 16 bytes long")
    assert SECRET[:15] not in line


def test_the_key_is_not_shown() -> None:
    read = Settings.from_mapping({"policies": {"signing_key": SECRET, "personas": {"p": {}}}})
    for shown in (repr(read), str(read), repr(read.policies), f"{read.policies.signing_key}"):
        assert SECRET not in shown
    assert read.to_mapping()["policies"]["signing_key"] == SECRET


def test_settings_made_by_hand_are_checked_as_well() -> None:
    with pytest.raises(ConfigurationError, match=r"^policies\.default_persona: no persona is named 'p'"):
        PoliciesSettings(default_persona="p")
    with pytest.raises(ConfigurationError, match=r"^policies\.signing_key: it should be at least") as caught:
        PoliciesSettings.model_validate({"signing_key": SECRET[:15]})
    assert SECRET[:15] not in "".join(traceback.format_exception(caught.value))


def test_to_mapping_loads_again_as_the_same_settings() -> None:
    block = {
        "default_persona": "p",
        "signing_key": SECRET,
        "personas": {"p": {"flags": [ACCESS], "namespaces": {"a": ["read"]}}, "q": {"namespaces": {}}},
    }
    read = Settings.from_mapping({"policies": block})
    assert Settings.from_mapping(yaml.safe_load(yaml.safe_dump(read.to_mapping()))) == read


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_a_personas_file_starts_at_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "conf/roles/personas.yaml", {**personas(p={"flags": [ACCESS]}), "host_key": 1})
    block = {"personas_file": "roles/personas.yaml", "default_persona": "p", "personas": {"q": {}}}
    config = write(tmp_path / "conf/config.yaml", {"policies": block})
    read = Settings.load(config, environ={}).policies
    assert read.personas == {"p": PersonaSettings(flags=(ACCESS,)), "q": PersonaSettings()}
    monkeypatch.chdir(tmp_path / "conf")
    assert Settings.load("config.yaml", environ={}).policies == read
    assert Settings.from_mapping({"policies": block}).policies == read


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            personas(p={"flags": 1}),
            "personas.p.flags: it should be a list, such as [type.system.kv_store_access], not 1",
        ),
        (personas(), "personas: there is none; name at least one, or leave the key out to allow everything"),
        ({}, "personas: there is none; name at least one, or leave policies.personas_file out"),
        ({"persona": {"p": {}}}, "persona: unknown key; did you mean personas?"),
        (personas(q={}), "personas.q: policies.personas has one of this name too; remove one"),
    ],
)
def test_an_error_in_a_personas_file_names_the_file(tmp_path: Path, data: object, line: str) -> None:
    path = write(tmp_path / "personas.yaml", data)
    assert refusal({"personas_file": str(path), "personas": {"q": {}}}) == f"{path}: {line}"


def test_a_personas_file_that_is_not_yaml_is_located_by_line(tmp_path: Path) -> None:
    path = tmp_path / "personas.yaml"
    path.write_text(f"personas:\n  p: {{namespaces: {{*: [{SECRET}]}}}}\n", encoding="utf-8")
    assert refusal({"personas_file": str(path)}).startswith(f"{path}: not valid YAML: line 2")


def test_the_example_file() -> None:
    read = policies({"personas_file": str(ROOT / "config/personas.yaml")}).personas
    assert set(read) == {"researcher", "auditor", "collector", "scratchpad", "operator"}
    assert all(ACCESS in persona.flags for persona in read.values())
