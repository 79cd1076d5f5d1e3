"""The JSON Schema of the configuration file: what it accepts and refuses is what ``Settings`` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from kvworker.errors import ConfigurationError
from kvworker.ops.local import stack
from kvworker.settings import Settings
from kvworker.settings.schema import (
    PERSONAS_SCHEMA_NAME,
    SCHEMA_NAME,
    configuration_schema,
    personas_schema,
    schema_text,
)

ROOT = Path(__file__).parents[3]
VALIDATOR = Draft202012Validator(configuration_schema())
PERSONAS_VALIDATOR = Draft202012Validator(personas_schema())

SHIPPED = {
    "config/kvworker.yaml": "kvworker.schema.json",
    "config/production.yaml": "kvworker.schema.json",
    "config/compose.yaml": "kvworker.schema.json",
    "config/personas.yaml": "personas.schema.json",
    "examples/kvworker.yaml": "../config/kvworker.schema.json",
}


def adapters(**blocks: object) -> dict[str, Any]:
    return {"tools": {"kv_store": {"adapters": blocks}}}


def persona(**block: object) -> dict[str, Any]:
    return {"policies": {"personas": {"p": block}}}


def oauth(**block: object) -> dict[str, Any]:
    given = {"issuer": "https://id", "audience": "https://kv/mcp", "jwks_url": "http://localhost:1/k"}
    return {"policies": {"oauth": {**given, **block}}}


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"queue": None, "facade": "", "maintenance": " ", "policies": {}, "tools": None},
    {"models": [1], "conversation": {"a": 1}, "tools": {"browser": {"x": 1}, "terminal": None}},
    adapters(postgres={"url": "postgresql://h/d", "pool": {"size": 1, "timeout": 0.5}}),
    adapters(postgres={"prepare_threshold": None, "global_quota_bytes": None, "namespace_quota_bytes": ""}),
    adapters(sqlite={"url": "sqlite:///x", "migrate_on_start": True}, postgres=None),
    adapters(cloud={"bucket": "b", "region": None}, other=None),
    {"queue": {"broker_url": "valkey://h/1", "queue_name": "a.b", "max_redeliveries": 1}},
    {"queue": {"broker_url": None, "max_redeliveries": " ", "remote_control": False}},
    {"facade": {"timeout_seconds": 1, "coalesce_calls": False}},
    {"conversation_store": {"url": "postgresql://h/d"}},
    {"maintenance": {"sweep_batch_rows": 1, "operation_retention_seconds": 1000}},
    {"policies": {"signing_key": "0123456789abcdef", "personas": None}},
    persona(flags=["a"], namespaces={"a.*": ["read", "write"]}, provider="kv_store_sqlite"),
    persona(namespaces={}),
    oauth(),
    oauth(
        algorithms=["ES512"], scopes={"kv": None}, prefix_claim="tenant", audience="kv", resource_url="https://kv/mcp"
    ),
    {"policies": {"personas": {"p": None}, "default_persona": "p"}},
]

REFUSED: list[dict[str, Any]] = [
    {"queue": 5},
    {"queue": [1]},
    {"tools": []},
    {"tools": {"kv_store": "x"}},
    {"tools": {"kv_store": {"defualt_adapter": "sqlite"}}},
    {"tools": {"kv_store": {"default_adapter": 3}}},
    adapters(postgres=3),
    adapters(cloud=3),
    adapters(postgres={"busy_timeout_seconds": 1}),
    adapters(postgres={"operation_retention_seconds": 5}),
    adapters(postgres={"pool": {"sise": 1}}),
    adapters(postgres={"pool": {"size": 0}}),
    adapters(postgres={"pool": {"size": True}}),
    adapters(postgres={"pool": {"size": "10"}}),
    adapters(postgres={"pool": {"timeout": 1e10}}),
    adapters(postgres={"url": 5}),
    adapters(sqlite={"migrate_on_start": "yes"}),
    adapters(sqlite={"busy_timeout_seconds": 0}),
    {"queue": {"brokr_url": "x"}},
    {"queue": {"queue_name": "a,b"}},
    {"queue": {"visibility_timeout_seconds": 4}},
    {"queue": {"visibility_timeout_seconds": 60.5}},
    {"queue": {"max_redeliveries": 0}},
    {"facade": {"timeout_seconds": 0}},
    {"facade": {"timeout_seconds": "5s"}},
    {"facade": {"sender_threads": 1001}},
    {"maintenance": {"prune_batch_rows": 1.5}},
    {"conversation_store": {"dsn": "x"}},
    {"policies": {"x": 1}},
    {"policies": {"signing_key": 5}},
    {"policies": {"personas_file": 5}},
    {"policies": {"personas": {}}},
    {"policies": {"personas": ["p"]}},
    {"policies": {"personas": {"p": [1]}}},
    persona(flag=["a"]),
    oauth(issuer=None),
    oauth(jwks_url=5),
    oauth(jwks="https://id/keys"),
    oauth(algorithms=[]),
    oauth(algorithms=["HS256"]),
    oauth(algorithms=["none"]),
    oauth(scopes=["kv"]),
    oauth(scopes={"kv": 5}),
    oauth(scopes=None),
    oauth(prefix_claim=" "),
    persona(flags="a"),
    persona(flags=[1]),
    persona(flags=[" "]),
    persona(namespaces=None),
    persona(namespaces=""),
    persona(namespaces=["a"]),
    persona(namespaces={"a": "read"}),
    persona(namespaces={"a": ["delete"]}),
    persona(namespaces={" ": ["read"]}),
    persona(provider=5),
]


def first_line_schema(text: str) -> str:
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("data", ACCEPTED)
def test_schema_and_settings_accept(data: dict[str, Any]) -> None:
    Settings.from_mapping(data)
    VALIDATOR.validate(data)


@pytest.mark.parametrize("data", REFUSED)
def test_schema_and_settings_refuse(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Settings.from_mapping(data)
    assert not VALIDATOR.is_valid(data)


def test_the_schemas_are_valid_and_every_key_is_described() -> None:
    for schema in (configuration_schema(), personas_schema()):
        Draft202012Validator.check_schema(schema)
        definitions = schema["$defs"]
        for block in (schema, *definitions.values()):
            for name, key in block.get("properties", {}).items():
                references = [choice.get("$ref", "").rpartition("/")[2] for choice in key["anyOf"]]
                described = [definitions[name]["description"] for name in references if name not in ("", "Blank")]
                assert key.get("description") or described, name


def test_defaults_validate() -> None:
    VALIDATOR.validate(yaml.safe_load(yaml.safe_dump(Settings().to_mapping())))


@pytest.mark.parametrize(
    ("name", "schema"), [(SCHEMA_NAME, configuration_schema), (PERSONAS_SCHEMA_NAME, personas_schema)]
)
def test_the_committed_schemas_are_what_the_command_prints(name: str, schema: Any) -> None:
    assert (ROOT / "config" / name).read_text(encoding="utf-8") == schema_text(schema()), (
        f"run `kvworker config schema > config/{SCHEMA_NAME}`"
        f" and `kvworker config schema --personas > config/{PERSONAS_SCHEMA_NAME}`"
    )


def test_every_configuration_file_is_listed_here() -> None:
    files = {
        path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("config/*.y*ml"), *ROOT.glob("examples/**/*.y*ml")]
    }
    assert files == set(SHIPPED)


@pytest.mark.parametrize(("name", "schema"), SHIPPED.items())
def test_every_shipped_file_names_its_schema_and_is_valid(name: str, schema: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    assert first_line_schema(text) == schema
    assert (path.parent / schema).is_file()
    validator = PERSONAS_VALIDATOR if schema.startswith("personas") else VALIDATOR
    validator.validate(yaml.safe_load(text))


def test_the_file_that_up_writes_names_a_schema_beside_it(tmp_path: Path) -> None:
    settings = Settings.from_mapping(persona(flags=["a"], namespaces={"a.*": ["read"]}))
    path = stack._write_config(tmp_path, settings, "redis+socket:///run/v.sock", "sqlite:////x/kv.sqlite")
    text = path.read_text(encoding="utf-8")
    assert first_line_schema(text) == SCHEMA_NAME
    assert (tmp_path / SCHEMA_NAME).read_text(encoding="utf-8") == schema_text(configuration_schema())
    VALIDATOR.validate(yaml.safe_load(text))
    assert Settings.load(path, environ={}).policies == settings.policies


def test_the_schema_of_a_personas_file_leaves_other_keys_alone() -> None:
    assert PERSONAS_VALIDATOR.is_valid({"personas": {"p": {"flags": ["a"]}}, "host": 1})


@pytest.mark.parametrize(
    "data",
    [{}, {"personas": None}, {"personas": {}}, {"personas": {"p": {"flags": 1}}}, persona(flags=["a"])],
)
def test_the_schema_of_a_personas_file_refuses(data: dict[str, Any]) -> None:
    assert not PERSONAS_VALIDATOR.is_valid(data)
