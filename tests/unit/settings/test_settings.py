"""Loading: the seed's examples, the shipped files, how the file is found, and which source wins."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kvworker import settings as settings_package
from kvworker.errors import ConfigurationError
from kvworker.settings import FacadeSettings, MaintenanceSettings, QueueSettings, Settings
from kvworker.settings.adapters import PostgresSettings, SqliteSettings

ROOT = Path(__file__).parents[3]

SEED_POSTGRES = """\
tools:
  kv_store:
    default_adapter: postgres
    adapters:
      postgres:
        reuse_conversation_store: false
        url: postgresql+psycopg://atlas:atlas@db.example.com:5432/atlas_kv
        namespace_quota_bytes: 2097152  # 2 MiB per namespace
        global_quota_bytes: 16777216   # 16 MiB total
        pool:
          size: 10
          max_overflow: 20
          timeout: 30
"""

SEED_SQLITE = """\
tools:
  kv_store:
    default_adapter: sqlite
    adapters:
      sqlite:
        url: sqlite:///var/lib/atlas/kv.sqlite
        reuse_conversation_store: false
"""

CONVERSATION_URL = "postgresql+psycopg://atlas:atlas@db.example.com:5432/conversations"
OWN_URL = "postgresql+psycopg://atlas:atlas@db.example.com:5432/own"


def written(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def postgres_block(block: object) -> dict[str, Any]:
    return {"tools": {"kv_store": {"adapters": {"postgres": block}}}}


def test_seed_postgres_example(tmp_path: Path) -> None:
    name, config = Settings.load(written(tmp_path, SEED_POSTGRES), environ={}).store.adapter_config()
    assert name == "postgres"
    assert config["url"] == "postgresql+psycopg://atlas:atlas@db.example.com:5432/atlas_kv"
    assert config["reuse_conversation_store"] is False
    assert config["namespace_quota_bytes"] == 2_097_152
    assert config["global_quota_bytes"] == 16_777_216
    assert config["pool"] == {"size": 10, "max_overflow": 20, "timeout": 30.0}


def test_seed_sqlite_example(tmp_path: Path) -> None:
    name, config = Settings.load(written(tmp_path, SEED_SQLITE), environ={}).store.adapter_config()
    assert name == "sqlite"
    assert config["url"] == "sqlite:///var/lib/atlas/kv.sqlite"


def test_adapter_config_is_valid_for_the_adapters(tmp_path: Path) -> None:
    settings = Settings.load(written(tmp_path, SEED_POSTGRES), environ={})
    PostgresSettings.model_validate(settings.store.adapter_config()[1])
    settings = Settings.load(written(tmp_path, SEED_SQLITE), environ={})
    SqliteSettings.model_validate(settings.store.adapter_config()[1])


def test_embedded_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(ROOT / "config/kvworker.yaml", environ={})
    name, config = settings.store.adapter_config()
    assert (name, config["url"], config["migrate_on_start"]) == ("sqlite", "sqlite:///.kvworker/kv.sqlite", True)
    assert settings.queue.broker_url == f"redis+socket://{tmp_path}/.kvworker/valkey.sock"
    assert settings.queue.result_backend == settings.queue.broker_url


def test_production_file_shows_the_defaults() -> None:
    settings = Settings.load(ROOT / "config/production.yaml", environ={"ATLAS_KV_STORE_URL": OWN_URL})
    assert settings.store.adapter_config()[1]["url"] == OWN_URL
    assert settings.facade == FacadeSettings()
    assert settings.maintenance == MaintenanceSettings()
    assert settings.queue == QueueSettings(broker_url="redis://valkey.example.com:6379/0")


def test_no_file_is_the_defaults() -> None:
    assert Settings.load(environ={}) == Settings()


def test_config_variable_names_the_file_and_an_explicit_path_wins(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("facade: {timeout_seconds: 7}")
    environ = {"KVWORKER_CONFIG": str(written(tmp_path, "facade: {timeout_seconds: 6}"))}
    assert Settings.load(environ=environ).facade.timeout_seconds == 6
    assert Settings.load(other, environ=environ).facade.timeout_seconds == 7
    assert Settings.load(str(other), environ=environ).facade.timeout_seconds == 7


@pytest.mark.parametrize("blank", ["", "   "])
def test_blank_config_variable_counts_as_omitted(blank: str) -> None:
    assert Settings.load(environ={"KVWORKER_CONFIG": blank}) == Settings()


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "tools:\n", "tools: {kv_store: }\n", "queue:\nfacade: ''\nmaintenance: null\npolicies: {}\n"],
)
def test_blank_blocks_count_as_omitted(tmp_path: Path, text: str) -> None:
    assert Settings.load(written(tmp_path, text), environ={}) == Settings()


def test_blank_values_count_as_omitted() -> None:
    blank = {
        "tools": {"kv_store": {"default_adapter": " ", "adapters": {"postgres": {"url": "", "pool": {"size": None}}}}},
        "queue": {"broker_url": "\t", "result_backend": None, "max_redeliveries": None},
        "conversation_store": {"url": ""},
    }
    assert Settings.from_mapping(blank) == Settings()


def test_null_prepare_threshold_means_never() -> None:
    _, config = Settings.from_mapping(
        postgres_block({"url": OWN_URL, "prepare_threshold": None})
    ).store.adapter_config()
    assert config["prepare_threshold"] is None


def test_a_host_programs_keys_are_ignored() -> None:
    host = {"models": [1], "conversation": {"a": 1}, 5: "x", "tools": {"browser": {"x": 1}, "terminal": None}}
    assert Settings.from_mapping(host) == Settings()


def test_blocks_of_other_adapters_are_passed_unchanged() -> None:
    block = {"bucket": "b", "region": None, "nested": {"blank": ""}}
    data = {"tools": {"kv_store": {"default_adapter": "cloud", "adapters": {"cloud": block}}}}
    store = Settings.from_mapping(data).store
    assert store.adapter_config() == ("cloud", block)
    assert store.adapter_config("unheard-of") == ("unheard-of", {})
    store.adapter_config()[1]["nested"]["blank"] = "changed"
    assert store.adapter_config() == ("cloud", block)


def test_an_adapter_chosen_by_name_may_resemble_a_bundled_one() -> None:
    data = {"tools": {"kv_store": {"default_adapter": "sqlite3", "adapters": {"sqlite3": {"file": "x"}}}}}
    assert Settings.from_mapping(data).store.adapter_config() == ("sqlite3", {"file": "x"})


def test_retention_reaches_the_bundled_adapters() -> None:
    adapters = {"postgres": {"url": OWN_URL}, "sqlite": {"url": "sqlite:///x"}}
    data = {"tools": {"kv_store": {"adapters": adapters}}, "maintenance": {"operation_retention_seconds": 7200}}
    store = Settings.from_mapping(data).store
    assert store.adapter_config()[1]["operation_retention_seconds"] == 7200
    assert store.adapter_config("sqlite")[1]["operation_retention_seconds"] == 7200
    assert store.adapter_config()[1]["generated_id_retention_seconds"] == 3600


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ({}, 3600),
        ({"queue": {"visibility_timeout_seconds": 600}}, 7200),
        ({"queue": {"result_expires_seconds": 4000}}, 4000),
        ({"facade": {"timeout_seconds": 2000.2}, "queue": {"result_expires_seconds": 3000}}, 4001),
        ({"maintenance": {"operation_retention_seconds": 1000}}, 1000),
        ({"maintenance": {"generated_id_retention_seconds": 5000}}, 5000),
    ],
)
def test_a_generated_id_is_remembered_for_an_hour_or_as_long_as_it_must(data: dict[str, Any], seconds: int) -> None:
    assert Settings.from_mapping(data).generated_id_retention_seconds == seconds


@pytest.mark.parametrize(
    ("block", "url", "reuse"),
    [
        ({}, CONVERSATION_URL, True),
        ({"reuse_conversation_store": True}, CONVERSATION_URL, True),
        ({"url": OWN_URL}, OWN_URL, False),
        ({"url": OWN_URL, "reuse_conversation_store": False}, OWN_URL, False),
    ],
)
def test_conversation_store_is_reused_unless_a_database_is_named(block: dict[str, Any], url: str, reuse: bool) -> None:
    data = {**postgres_block(block), "conversation_store": {"url": CONVERSATION_URL}}
    _, config = Settings.from_mapping(data).store.adapter_config()
    assert (config["url"], config["reuse_conversation_store"]) == (url, reuse)


def test_reuse_without_a_url_leaves_the_url_to_the_host() -> None:
    _, config = Settings.from_mapping(postgres_block({"reuse_conversation_store": True})).store.adapter_config()
    assert (config["url"], config["reuse_conversation_store"]) == (None, True)


@pytest.mark.parametrize("block", [{}, {"reuse_conversation_store": False}])
def test_a_missing_database_is_an_error_when_the_adapter_is_configured_not_at_load(block: dict[str, Any]) -> None:
    store = Settings.from_mapping(postgres_block(block)).store
    with pytest.raises(ConfigurationError) as caught:
        store.adapter_config()
    for part in ("tools.kv_store.adapters.postgres.url", "ATLAS_KV_STORE_URL", "reuse_conversation_store"):
        assert part in str(caught.value)


def test_a_reused_database_must_be_of_the_adapters_kind() -> None:
    settings = Settings.from_mapping({"conversation_store": {"url": "mysql://u:hidden@h/d"}})
    with pytest.raises(ConfigurationError, match=r"^conversation_store\.url: the postgres adapter") as caught:
        settings.store.adapter_config()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", [SEED_POSTGRES, SEED_SQLITE, (ROOT / "config/production.yaml").read_text()])
def test_to_mapping_loads_again_as_the_same_settings(tmp_path: Path, text: str) -> None:
    settings = Settings.load(written(tmp_path, text), environ={"ATLAS_KV_POOL_SIZE": "3"})
    assert Settings.from_mapping(settings.to_mapping()) == settings


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().facade.timeout_seconds = 1


def test_settings_made_by_hand_are_checked_as_well() -> None:
    with pytest.raises(ConfigurationError, match=r"^queue\.retry_seconds: it should be below"):
        Settings(queue=QueueSettings(retry_seconds=100.0))


def test_settings_import_neither_adapters_nor_drivers_nor_celery() -> None:
    forbidden = ("kvworker.adapters", "sqlalchemy", "celery", "kombu", "tasks")
    for path in Path(settings_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith(forbidden) and name != "kvworker.settings.adapters"]


def test_settings_load_only_what_a_client_needs() -> None:
    code = "import kvworker.settings, sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(done.stdout.split()) & {"celery", "kombu", "sqlalchemy", "pydantic_settings", "kvworker.adapters"}
