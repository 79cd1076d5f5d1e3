"""Reading ``tools.kv_store``: the bundled adapters' blocks are validated, others are kept as given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import SqlAdapterSettings, configuration_error
from kvworker.settings.blocks import Block
from kvworker.settings.environment import with_fallbacks
from kvworker.settings.store import ADAPTERS_PATH, BUNDLED_ADAPTERS, KvStoreSettings
from kvworker.settings.yaml_file import mapping_at, near_misses

_PATH = "tools.kv_store"


class _Layout(Block):
    default_adapter: str = Field(default="postgres", min_length=1)
    adapters: dict[str, Any] = Field(default_factory=dict)


def read_kv_store(data: Mapping[Any, Any], environ: Mapping[str, str], problems: list[str]) -> KvStoreSettings | None:
    """The store's block with the environment's fallbacks; None, and lines in ``problems``, if it is wrong."""
    found = len(problems)
    tools = mapping_at(data, "tools", "tools", problems)
    problems.extend(near_misses(tools.keys(), ("kv_store",), "tools."))
    layout = _read_layout(mapping_at(tools, "kv_store", _PATH, problems), problems)
    if layout is None:
        return None
    # An adapter that is chosen by its name exists under that name, however close it is to a bundled one.
    others = [name for name in layout.adapters if name not in BUNDLED_ADAPTERS and name != layout.default_adapter]
    absent = [name for name in BUNDLED_ADAPTERS if name not in layout.adapters]
    problems.extend(near_misses(others, absent, f"{ADAPTERS_PATH}."))
    blocks = {name: mapping_at(layout.adapters, name, f"{ADAPTERS_PATH}.{name}", problems) for name in layout.adapters}
    blocks["postgres"] = with_fallbacks(blocks.get("postgres", {}), environ, problems)
    bundled = {name: _read_adapter(name, blocks.pop(name, {}), problems) for name in BUNDLED_ADAPTERS}
    if len(problems) > found and None in bundled.values():
        return None
    try:
        return KvStoreSettings.model_validate({"default_adapter": layout.default_adapter, **bundled, "others": blocks})
    except ConfigurationError as error:
        problems.extend(str(error).splitlines())
        return None


def _read_layout(block: Mapping[Any, Any], problems: list[str]) -> _Layout | None:
    try:
        return _Layout.model_validate(block)
    except ValidationError as error:
        problems.extend(str(configuration_error(_PATH, error, _Layout)).splitlines())
        return None


def _read_adapter(name: str, block: Mapping[Any, Any], problems: list[str]) -> SqlAdapterSettings | None:
    path = f"{ADAPTERS_PATH}.{name}"
    if "operation_retention_seconds" in block:
        problems.append(f"{path}.operation_retention_seconds: set maintenance.operation_retention_seconds instead")
    model = BUNDLED_ADAPTERS[name]
    try:
        return model.model_validate(block)
    except ValidationError as error:
        problems.extend(str(configuration_error(path, error, model)).splitlines())
        return None
