from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvworker.adapters import (
    KeyValueStoreAdapter,
    available_kv_store_adapters,
    create_kv_store_adapter,
    register_kv_store_adapter,
    registry,
)
from kvworker.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _unregister() -> Iterator[None]:
    before = dict(registry._factories)
    yield
    registry._factories.clear()
    registry._factories.update(before)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with one working and one broken adapter."""
    metadata = tmp_path / "kv_plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kv-plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[kvworker.adapters]\nworking = kv_plugins_working:make\nbroken = kv_plugins_missing:make\n"
    )
    (tmp_path / "kv_plugins_working.py").write_text(
        "from kvworker.adapters import create_kv_store_adapter\n"
        "def make(config):\n    return create_kv_store_adapter('sqlite', {'url': 'sqlite://', **config})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kv_plugins_working", raising=False)


def make_in_memory(config: Mapping[str, Any]) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("sqlite", {"url": "sqlite://", **config})


def test_the_bundled_adapters_are_available() -> None:
    assert available_kv_store_adapters() == ("postgres", "sqlite")


def test_a_registered_adapter_gets_its_block() -> None:
    seen: list[Mapping[str, Any]] = []

    def factory(config: Mapping[str, Any]) -> KeyValueStoreAdapter:
        seen.append(config)
        return make_in_memory({})

    register_kv_store_adapter("mine", factory)
    assert "mine" in available_kv_store_adapters()
    with create_kv_store_adapter("mine", {"anything": [1]}) as adapter:
        adapter.set("namespace", "key", 1)
    assert seen == [{"anything": [1]}]


def test_a_name_in_use_is_replaced_only_on_request() -> None:
    with pytest.raises(ConfigurationError, match="registered already"):
        register_kv_store_adapter("postgres", make_in_memory)
    register_kv_store_adapter("postgres", make_in_memory, replace=True)
    with create_kv_store_adapter("postgres", {}) as adapter:
        assert adapter.increment("namespace", "key").value == 1


def test_a_blank_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="blank"):
        register_kv_store_adapter(" ", make_in_memory)


def test_an_error_about_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="available: postgres, sqlite"):
        create_kv_store_adapter("redis", {})


@pytest.mark.usefixtures("plugins")
def test_installed_packages_offer_adapters() -> None:
    assert available_kv_store_adapters() == ("broken", "postgres", "sqlite", "working")
    with create_kv_store_adapter("working", {}) as adapter:
        assert adapter.increment("namespace", "key").value == 1


@pytest.mark.usefixtures("plugins")
def test_a_broken_package_is_an_error_only_if_it_is_used() -> None:
    create_kv_store_adapter("sqlite", {"url": "sqlite://"}).close()
    with pytest.raises(ConfigurationError, match=r"'broken' .*kv_plugins_missing.*ModuleNotFoundError"):
        create_kv_store_adapter("broken", {})


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("postgres", {"url": "postgresql://h/d", "pool": {"size": 0}}, r"postgres\.pool\.size.*not 0"),
        ("postgres", {"url": "postgresql://h/d", "busy_timeout_seconds": 1}, r"busy_timeout_seconds: unknown key"),
        ("sqlite", {"url": "sqlite://", "namespace_quota_bytes": -5}, r"sqlite\.namespace_quota_bytes.*not -5"),
        ("sqlite", {"url": 5}, r"sqlite\.url"),
        ("sqlite", {"url": "sqlite:///kv.db?journal=off"}, r"sqlite\.url: the parameter 'journal' is not supported"),
        ("sqlite", {"url": "sqlite://kv.db"}, r"sqlite\.url: a relative path starts after three slashes"),
    ],
)
def test_an_invalid_block_is_reported_by_its_path(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_kv_store_adapter(name, config)
