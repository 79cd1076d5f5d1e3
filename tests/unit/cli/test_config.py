"""``kvworker config``: the effective settings, where each came from, and no secret; and the schemas."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvworker.settings import Settings
from kvworker.settings.environment import FALLBACKS, SECRET_VARIABLES
from kvworker.settings.schema import configuration_schema, personas_schema
from tests.unit.cli.conftest import Kvworker

SECRET = "s3cr3t"  # noqa: S105 - must not be printed
LONG_SECRET = f"{SECRET}-and-long-enough"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FALLBACKS, *(f"{name}_FILE" for name in SECRET_VARIABLES)):
        monkeypatch.delenv(name, raising=False)


def written(path: Path, data: object) -> Path:
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def origins(shown: str) -> dict[str, str]:
    """The comment of each line, by the line's key; the last of equal keys."""
    pairs = (line.split("  # ", 1) for line in shown.splitlines() if "  # " in line)
    return {line.strip().partition(":")[0]: origin for line, origin in pairs}


SECRETS: list[dict[str, Any]] = [
    {"tools": {"kv_store": {"adapters": {"postgres": {"url": f"postgresql+psycopg://u:{SECRET}@h/d"}}}}},
    {"tools": {"kv_store": {"adapters": {"postgres": {"url": f"postgresql:///d?user=u&password={SECRET}"}}}}},
    {"tools": {"kv_store": {"adapters": {"sqlite": {"url": f"sqlite:///file:x?vfs=token={SECRET}&uri=true"}}}}},
    {"tools": {"kv_store": {"adapters": {"cloud": {"api_key": SECRET}}}}},
    {"tools": {"kv_store": {"adapters": {"cloud": {"account": SECRET, "nested": {"a": [SECRET], SECRET: 1}}}}}},
    {"tools": {"kv_store": {"adapters": {"cloud": {"endpoints": [f"https://u:{SECRET}@h"]}}}}},
    {"conversation_store": {"url": f"postgresql://u:{SECRET}@h/d"}},
    {"conversation_store": {"url": f"postgresql://u:a@b/{SECRET}@h/d"}},
    {"conversation_store": {"url": f"host=h password={SECRET}"}},
    {"conversation_store": {"url": SECRET}},
    {"queue": {"broker_url": f"redis://:{SECRET}@h/0"}},
    {"queue": {"broker_url": f"redis+socket:///run/v.sock?password={SECRET}"}},
    {"queue": {"broker_url": f"amqp://u:{SECRET}@h//", "result_backend": f"rediss://u:{SECRET}@h/1"}},
    {"policies": {"signing_key": LONG_SECRET}},
    {"policies": {"signing_key": f"redis://{LONG_SECRET}"}},
    {"policies": {"signing_key": LONG_SECRET, "previous_signing_keys": [LONG_SECRET]}},
    {"host": {"password": SECRET}, "tools": {"browser": {"token": SECRET}}},
]


@pytest.mark.parametrize("data", SECRETS)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_of_the_file_is_printed(
    kvworker: Kvworker, tmp_path: Path, data: dict[str, Any], form: tuple[str, ...]
) -> None:
    ran = kvworker("config", "show", "--config", str(written(tmp_path / "config.yaml", data)), *form)
    assert ran.code == 0, ran.err
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ATLAS_KV_STORE_URL", f"postgresql://u:{SECRET}@h/d"),
        ("KVWORKER_SIGNING_KEY", LONG_SECRET),
        ("KVWORKER_BROKER_URL", f"redis://:{SECRET}@h/1"),
        ("KVWORKER_RESULT_BACKEND", f"redis://:{SECRET}@h/1"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_of_the_environment_is_printed(
    kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, form: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, text)
    ran = kvworker("config", "show", *form)
    assert name in ran.out
    assert SECRET not in ran.out + ran.err
    monkeypatch.delenv(name)
    (tmp_path / "secret").write_text(text)
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    ran = kvworker("config", "show", *form)
    assert f"{name}_FILE" in ran.out
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize(
    "data",
    [
        {"queue": {"broker_url": f"redis:/u:{SECRET}@h"}},
        {"policies": {"signing_key": [LONG_SECRET]}},
        {"conversation_store": f"postgresql://u:{SECRET}@h/d"},
        {"queue": {"brokerurl": f"redis://u:{SECRET}@h"}},
    ],
)
def test_a_wrong_configuration_is_the_same_error_as_elsewhere(
    kvworker: Kvworker, tmp_path: Path, data: dict[str, Any]
) -> None:
    path = str(written(tmp_path / "wrong.yaml", data))
    ran = kvworker("config", "show", "--config", path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    assert SECRET not in ran.err
    assert kvworker("get", "a", "b", "--config", path).err == ran.err


def test_a_missing_file_is_an_error(kvworker: Kvworker, tmp_path: Path) -> None:
    ran = kvworker("config", "show", "--config", str(tmp_path / "missing.yaml"))
    assert ran.code == 1
    assert "cannot read" in ran.err


def test_each_value_has_its_origin(kvworker: Kvworker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    personas = written(tmp_path / "personas.yaml", {"personas": {"q": {"flags": ["of-file"]}}})
    data = {
        "tools": {
            "kv_store": {
                "adapters": {
                    "postgres": {"prepare_threshold": None, "pool": {"size": 7, "timeout": ""}},
                    "cloud": {"bucket": "b"},
                    "empty": None,
                }
            }
        },
        "queue": {"queue_name": " "},
        "policies": {
            "personas_file": "personas.yaml",
            "personas": {"p": {"namespaces": {"research.*": ["read"]}}, "bare": None},
        },
    }
    path = written(tmp_path / "config.yaml", data)
    monkeypatch.setenv("ATLAS_KV_POOL_SIZE", "9")
    monkeypatch.setenv("ATLAS_KV_MAX_OVERFLOW", "11")
    monkeypatch.setenv("KVWORKER_SIGNING_KEY", LONG_SECRET)
    shown = kvworker("config", "show", "--config", str(path), "--json").json
    assert shown["file"] == str(path)
    found = shown["origins"]
    postgres = "tools.kv_store.adapters.postgres"
    assert {setting: origin for setting, origin in found.items() if origin != "default"} == {
        f"{postgres}.prepare_threshold": str(path),
        f"{postgres}.pool.size": str(path),
        f"{postgres}.pool.max_overflow": "ATLAS_KV_MAX_OVERFLOW",
        "tools.kv_store.adapters.cloud.bucket": str(path),
        "tools.kv_store.adapters.empty": str(path),
        "policies.signing_key": "KVWORKER_SIGNING_KEY",
        "policies.personas_file": str(path),
        "policies.personas.p.namespaces": str(path),
        "policies.personas.q.flags": str(personas),
    }
    assert found["queue.queue_name"] == found[f"{postgres}.pool.timeout"] == "default"
    assert shown["settings"]["policies"]["personas"]["q"] == {"flags": ["of-file"]}
    assert shown["settings"]["tools"]["kv_store"]["adapters"]["postgres"]["pool"] == {
        "size": 7,
        "max_overflow": 11,
        "timeout": 30.0,
    }


def test_the_yaml_is_the_file_that_gives_these_settings(kvworker: Kvworker, tmp_path: Path) -> None:
    data = {
        "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite:///x"}}}},
        "queue": {"broker_url": "redis://h/1", "queue_name": "yes"},
        "policies": {"personas": {"ä: b": {"flags": ["a, b", "# c"], "namespaces": {"x.*": ["read", "write"]}}}},
    }
    path = written(tmp_path / "config.yaml", data)
    ran = kvworker("config", "show", "--config", str(path))
    assert Settings.from_mapping(yaml.safe_load(ran.out)) == Settings.from_mapping(data)
    assert origins(ran.out)["broker_url"] == str(path)
    assert origins(ran.out)["result_backend"] == "default"


def test_it_reads_the_places_that_every_command_reads(
    kvworker: Kvworker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvworker("config", "show", "--json").json["file"] == str(tmp_path / "kvworker.yaml")
    monkeypatch.delenv("KVWORKER_CONFIG")
    monkeypatch.chdir(tmp_path)
    shown = kvworker("config", "show", "--json").json
    assert shown["file"] is None
    assert set(shown["origins"].values()) == {"default"}
    (tmp_path / ".kvworker").mkdir()
    written(tmp_path / ".kvworker" / "kvworker.yaml", {"facade": {"sender_threads": 3}})
    assert kvworker("config", "show", "--json").json["settings"]["facade"]["sender_threads"] == 3


def test_output_that_lacks_the_characters_gets_escapes(
    kvworker: Kvworker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "κ\n.yaml", {"policies": {"personas": {"ναμε": {"flags": ["é"]}}}})
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    kvworker("config", "show", "--config", str(path))
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    shown = yaml.safe_load(out.buffer.getvalue())
    assert shown["policies"]["personas"] == {"ναμε": {"flags": ["é"]}}


def test_the_schemas(kvworker: Kvworker) -> None:
    assert kvworker("config", "schema").json == json.loads(json.dumps(configuration_schema()))
    assert kvworker("config", "schema", "--personas").json == json.loads(json.dumps(personas_schema()))


def test_the_group_lists_its_commands(kvworker: Kvworker) -> None:
    ran = kvworker("config", "--help")
    assert {"show", "schema"} <= set(ran.out.split())
