"""docs/reference/configuration.md lists every key with its default and every variable, and nothing else.

``config/production.yaml`` shows every key as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator

from kvworker.settings import (
    ConversationStoreSettings,
    FacadeSettings,
    MaintenanceSettings,
    PersonaSettings,
    PoliciesSettings,
    QueueSettings,
    Settings,
)
from kvworker.settings.adapters import PoolSettings, PostgresSettings, SqliteSettings
from kvworker.settings.oauth import OAuthSettings
from kvworker.settings.schema import configuration_schema

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")

BLOCKS: dict[str, type[BaseModel]] = {
    "tools.kv_store.adapters.postgres": PostgresSettings,
    "tools.kv_store.adapters.sqlite": SqliteSettings,
    "conversation_store": ConversationStoreSettings,
    "queue": QueueSettings,
    "facade": FacadeSettings,
    "maintenance": MaintenanceSettings,
    "policies": PoliciesSettings,
    "policies.oauth": OAuthSettings,
    "policies.personas.NAME": PersonaSettings,
}
#: Ten years, which the page names once, and bounds beyond any use.
NOT_SHOWN = (315_360_000, 2**40, 2**62)
DESCRIBED_IN_WORDS = {
    "reuse_conversation_store": "true without a `url`, else false",
    "result_backend": "the broker's",
    "flags": "none",
    "namespaces": "every namespace",
    "generated_id_retention_seconds": "an hour, or longer where the rules demand it",
    "provider": "the default adapter",
    "issuer": "required",
    "audience": "required",
    "jwks_url": "required",
    "resource_url": "`audience`",
    "algorithms": "RS256, PS256, ES256, EdDSA",
    "scopes": "none",
}


def shown(value: object) -> str:
    if value is None:
        return "none"
    if value == ():
        return "`[]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) and value < 100_000 else f"`{value}`"


def expected(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if field.annotation is PoolSettings:
            yield from expected(PoolSettings, f"{name}.")
        elif model is MaintenanceSettings or name not in {
            "operation_retention_seconds",
            "generated_id_retention_seconds",
            "url_file",
        }:
            yield prefix + name, DESCRIBED_IN_WORDS.get(name, shown(field.default))


def rows(heading: str) -> list[tuple[str, str, str]]:
    """Return the key, the unit and the default of each row of a block's table."""
    section = TEXT.split(f"\n## `{heading}`\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \| .+ \|$", section, re.MULTILINE)
    return [(name, unit, default) for name, unit, default in found if unit.strip()]


def documented(heading: str) -> dict[str, str]:
    return {name: default for name, _, default in rows(heading)}


def documented_units(heading: str) -> dict[str, str]:
    return {name: unit for name, unit, _ in rows(heading)}


def ranges(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key that is a number, and what its unit says about its range."""
    for name, field in model.model_fields.items():
        if field.annotation is PoolSettings:
            yield from ranges(PoolSettings, f"{name}.")
        elif field.annotation in {int, float} or field.annotation == int | None:
            found = {key: getattr(each, key) for each in field.metadata for key in ("ge", "le") if hasattr(each, key)}
            yield prefix + name, range_text(found.get("ge", 1), found.get("le", 2**62))


def range_text(least: float, most: float) -> str:
    if most in NOT_SHOWN:
        return "" if least == 1 else f"at least {least}"
    return f"at most {most}" if least == 1 else f"{least} to {most}"


def test_every_range() -> None:
    for heading, model in BLOCKS.items():
        units = documented_units(heading)
        for name, text in ranges(model):
            if name in units:
                assert units[name].partition(", ")[2] == text, f"{heading}.{name}"


def test_every_key_and_its_default() -> None:
    for heading, model in BLOCKS.items():
        assert documented(heading) == dict(expected(model)), heading
    assert documented("tools.kv_store") == {"default_adapter": "`postgres`", "adapters": "none"}


def test_every_variable() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)` ", TEXT, re.MULTILINE))
    read = set()
    for path in (Path(__file__).parents[3] / "kvworker/settings").glob("*.py"):
        read |= set(re.findall(r'"((?:ATLAS_KV|KVWORKER|CONVERSATION)_[A-Z_]+)"', path.read_text(encoding="utf-8")))
    assert listed == read


def keys_of(mapping: dict[str, Any], prefix: str = "") -> set[str]:
    nested = [keys_of(value, f"{prefix}{name}.") for name, value in mapping.items() if isinstance(value, dict)]
    return {prefix + name for name, value in mapping.items() if not isinstance(value, dict)}.union(*nested)


def test_the_first_block_shows_every_key_with_its_default() -> None:
    block = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    shown_there = yaml.safe_load(block[1])
    assert Settings.from_mapping(shown_there) == Settings()
    assert keys_of(shown_there) == every_key()


def every_key() -> set[str]:
    """Every key of a file for PostgreSQL, without those within blocks that are None by default."""
    return {key for key in keys_of(Settings().to_mapping()) if ".sqlite." not in key}


def test_the_production_file_shows_every_key_on_or_off() -> None:
    text = (ROOT / "config/production.yaml").read_text(encoding="utf-8")
    shown_there = yaml.safe_load(re.sub(r"(?m)^( *)# ( *[a-z_]+:(?: |$))", r"\1\2", text))
    assert keys_of(shown_there) == every_key()
    Draft202012Validator(configuration_schema()).validate(shown_there)
