"""The environment variables that stand in for what the configuration file omits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvworker.settings.base import is_blank

CONFIG_VARIABLE = "KVWORKER_CONFIG"
SIGNING_KEY_VARIABLE = "KVWORKER_SIGNING_KEY"
URL_VARIABLE = "ATLAS_KV_STORE_URL"
REUSE_VARIABLE = "ATLAS_KV_REUSE_CONVERSATION"

_POSTGRES = ("tools", "kv_store", "adapters", "postgres")
_URL = (*_POSTGRES, "url")
_REUSE = (*_POSTGRES, "reuse_conversation_store")

#: Each variable and the setting that it is the fallback for.
FALLBACKS: dict[str, tuple[str, ...]] = {
    SIGNING_KEY_VARIABLE: ("policies", "signing_key"),
    URL_VARIABLE: _URL,
    REUSE_VARIABLE: _REUSE,
    "ATLAS_KV_NAMESPACE_QUOTA_BYTES": (*_POSTGRES, "namespace_quota_bytes"),
    "ATLAS_KV_GLOBAL_QUOTA_BYTES": (*_POSTGRES, "global_quota_bytes"),
    "ATLAS_KV_POOL_SIZE": (*_POSTGRES, "pool", "size"),
    "ATLAS_KV_MAX_OVERFLOW": (*_POSTGRES, "pool", "max_overflow"),
    "ATLAS_KV_POOL_TIMEOUT": (*_POSTGRES, "pool", "timeout"),
}


def value_at(data: object, path: Sequence[str]) -> Any:
    """Return the value at a path of the file, or None.

    If a block on the path is not a mapping, return that wrong value: the file does not omit the setting.
    """
    for key in path:
        if not isinstance(data, Mapping):
            break
        data = data.get(key)
    return data


def variables_in_use(data: Mapping[Any, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that apply, by name: those that are not blank and whose setting the file omits.

    A file that names a database, or reuses the conversation store's, has chosen between the two. The variable for the
    other choice does not apply then.
    """
    reuses = value_at(data, _REUSE) is True
    names_database = not is_blank(value_at(data, _URL))
    decided = {URL_VARIABLE} if reuses else {REUSE_VARIABLE} if names_database else set()
    return {
        name: environ[name].strip()
        for name, path in FALLBACKS.items()
        if not is_blank(environ.get(name)) and name not in decided and is_blank(value_at(data, path))
    }


def with_fallbacks(data: Mapping[Any, Any], environ: Mapping[str, str]) -> Mapping[Any, Any]:
    """Return the file's data, completed from the environment.

    Raises:
        ConfigurationError: A variable has an impossible value.
    """
    in_use = variables_in_use(data, environ)
    if not in_use:
        return data
    # pydantic-settings adds about a fifth to the import time of this package, and most clients set no variable.
    from kvworker.settings.variables import read_variables  # noqa: PLC0415

    for name, value in read_variables(in_use).items():
        data = _with_value(data, FALLBACKS[name], value)
    return data


def _with_value(data: object, path: Sequence[str], value: object) -> dict[Any, Any]:
    key, *rest = path
    block = data if isinstance(data, Mapping) else {}
    return {**block, key: _with_value(block.get(key), rest, value) if rest else value}
