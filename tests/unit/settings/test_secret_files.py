"""Broker and results from the environment, and secrets from files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from kvworker.settings.environment import FALLBACKS, SECRET_VARIABLES

URL = "postgresql+psycopg://atlas:hidden@db.example.com/env"


def queue_of(environ: dict[str, str], **queue: str) -> tuple[str, str]:
    settings = Settings.from_mapping({"queue": queue}, environ=environ).queue
    return settings.broker_url, settings.result_backend


def test_broker_and_results_have_variables() -> None:
    environ = {"KVWORKER_BROKER_URL": " valkey://h/1 ", "KVWORKER_RESULT_BACKEND": "redis://h/2"}
    assert queue_of(environ) == ("redis://h/1", "redis://h/2")
    assert queue_of({"KVWORKER_BROKER_URL": "redis://h/1"}) == ("redis://h/1", "redis://h/1")
    assert queue_of(environ, broker_url="redis://file/0") == ("redis://file/0", "redis://h/2")


@pytest.mark.parametrize("name", ["KVWORKER_BROKER_URL", "KVWORKER_RESULT_BACKEND"])
def test_a_bad_queue_variable_is_named_and_not_shown(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        queue_of({name: "http://:hidden@h"})
    assert str(caught.value).startswith(f"{name}: it should be a URL that starts with redis://")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_a_file_may_hold_the_value_of_each_secret(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    key = "long-enough-a-key"
    values = {"broker_url": "redis://h/1", "result_backend": "redis://h/2"}
    value = values.get(FALLBACKS[name][-1], key if "signing" in FALLBACKS[name][-1] else URL)
    file.write_text(f"{value}\n")
    others = {} if name == "KVWORKER_SIGNING_KEY" else {"policies": {"signing_key": key}}
    settings = Settings.from_mapping(others, environ={f"{name}_FILE": str(file)}).to_mapping()
    assert settings == Settings.from_mapping(others, environ={name: value}).to_mapping()
    assert settings != Settings.from_mapping(others).to_mapping()


def test_a_variable_and_its_file_contradict_each_other(tmp_path: Path) -> None:
    environ = {"KVWORKER_BROKER_URL": "redis://h", "KVWORKER_BROKER_URL_FILE": str(tmp_path / "file")}
    with pytest.raises(ConfigurationError) as caught:
        queue_of(environ)
    assert str(caught.value) == "KVWORKER_BROKER_URL and KVWORKER_BROKER_URL_FILE are both set; unset one of them"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "it is not UTF-8 text")]
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        queue_of({"KVWORKER_BROKER_URL_FILE": str(file)})
    assert str(caught.value).startswith("KVWORKER_BROKER_URL_FILE: ")
    assert reason in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_the_configuration_file_overrides_is_not_read() -> None:
    assert queue_of({"KVWORKER_BROKER_URL_FILE": "/no/such/file"}, broker_url="redis://h/1")[0] == "redis://h/1"


def test_only_secrets_may_come_from_files() -> None:
    environ = {"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_SIZE_FILE": "/no/such/file"}
    assert Settings.from_mapping({}, environ=environ).kv_store.adapters.postgres.pool.size == 5
