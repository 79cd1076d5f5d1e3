"""The effective settings with their secrets masked, and the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from kvworker.settings.base import Block
from kvworker.settings.config_file import read_configuration
from kvworker.settings.environment import FALLBACKS, given_as, value_at, variables_in_use
from kvworker.settings.root import Settings
from kvworker.settings.urls import redacted_url

DEFAULT: Final = "default"
HIDDEN: Final = "***"

_ADAPTERS = ("tools", "kv_store", "adapters")
_PERSONAS = ("policies", "personas")

SettingPath = tuple[str, ...]


@dataclass(frozen=True)
class EffectiveSettings:
    """Settings that are safe to print: every secret is masked.

    Attributes:
        file: The configuration file; None without one.
        values: The settings in the file's layout. Passwords in URLs and the signing key are masked, and every value of
            an adapter that is not bundled.
        origins: The origin of each value: a file's path, a variable's name or ``default``.
    """

    file: Path | None
    values: Mapping[str, Any]
    origins: Mapping[SettingPath, str]


def effective_settings(path: Path | None, environ: Mapping[str, str]) -> EffectiveSettings:
    """Load the settings as ``Settings.load`` does, and find the origin of each value.

    Raises:
        ConfigurationError: The file or the environment is wrong.
    """
    data, file = read_configuration(path, environ)
    settings = Settings.from_mapping(data, environ=environ, directory=file.parent if file else None)
    variables = {FALLBACKS[name]: given_as(name, environ) for name in variables_in_use(data, environ)}
    values = _masked_values(settings)
    origins = {
        setting: variables.get(setting)
        or (_file_of(setting, settings, file) if _is_given(setting, settings) else DEFAULT)
        for setting in _leaves(values)
    }
    return EffectiveSettings(file, values, origins)


def is_leaf(setting: SettingPath, value: object) -> bool:
    """Return whether a value is a single setting. A persona's namespaces are: their patterns are not settings."""
    return not isinstance(value, dict) or not value or (setting[:2] == _PERSONAS and setting[-1] == "namespaces")


def _leaves(values: Mapping[str, Any], above: SettingPath = ()) -> Iterator[SettingPath]:
    for key, value in values.items():
        setting = (*above, key)
        if is_leaf(setting, value):
            yield setting
        else:
            yield from _leaves(value, setting)


def _is_given(setting: SettingPath, settings: Settings) -> bool:
    if setting == _PERSONAS:
        # Only an empty block of personas is a single setting.
        return False
    block: Any = settings
    for key in setting:
        # All personas may come from a personas file.
        given = block.model_fields_set | {"personas"} if isinstance(block, Block) else set(block)
        if key not in given:
            return False
        block = getattr(block, key) if isinstance(block, Block) else block[key]
    return True


def _file_of(setting: SettingPath, settings: Settings, file: Path | None) -> str:
    personas_file = settings.policies.personas_file
    if personas_file and setting[:2] == _PERSONAS and setting[2] in personas_file.personas:
        return str(personas_file.path)
    return str(file)


def _masked_values(settings: Settings) -> dict[str, Any]:
    values: dict[str, Any] = _masked(settings.to_mapping(reveal_secrets=False))
    adapters = value_at(values, _ADAPTERS)
    # Only the adapter's own factory knows which of these values are secrets.
    adapters |= {name: dict.fromkeys(block, HIDDEN) for name, block in settings.kv_store.adapters.others.items()}
    if personas_file := settings.policies.personas_file:
        values["policies"]["personas_file"] = str(personas_file.path)
    return values


def _masked(value: object) -> Any:
    if isinstance(value, dict):
        return {
            key: _masked_secret(key, item) if isinstance(item, SecretStr) else _masked(item)
            for key, item in value.items()
        }
    if isinstance(value, tuple):
        return [HIDDEN if isinstance(item, SecretStr) else item for item in value]
    return redacted_url(value) if isinstance(value, str) else value


def _masked_secret(key: str, secret: SecretStr) -> str:
    text = secret.get_secret_value()
    return redacted_url(text) if key == "url" and "://" in text else HIDDEN
