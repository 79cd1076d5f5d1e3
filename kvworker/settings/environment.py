"""The environment variables that stand in for what the configuration file omits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvworker.settings.base import is_blank

CONFIG_VARIABLE = "KVWORKER_CONFIG"
SIGNING_KEY_VARIABLE = "KVWORKER_SIGNING_KEY"
URL_VARIABLE = "ATLAS_KV_STORE_URL"
REUSE_VARIABLE = "ATLAS_KV_REUSE_CONVERSATION"
#: Other names of the same, which ATLAS reads as well. The documented ones win.
OTHER_URL_VARIABLE = "ATLAS_KV_URL"
OTHER_REUSE_VARIABLE = "ATLAS_KV_REUSE_CONVERSATION_STORE"
CONVERSATION_VARIABLE = "CONVERSATION_DATABASE_URL"

_POSTGRES = ("tools", "kv_store", "adapters", "postgres")
_URL = (*_POSTGRES, "url")
_REUSE = (*_POSTGRES, "reuse_conversation_store")

CONVERSATION_URL = ("conversation_store", "url")
#: Where ATLAS's file has the same.
OTHER_CONVERSATION_URL = ("conversation_database", "url")

#: Each variable and the setting that it is the fallback for. If several are for one setting, the first one wins.
FALLBACKS: dict[str, tuple[str, ...]] = {
    SIGNING_KEY_VARIABLE: ("policies", "signing_key"),
    URL_VARIABLE: _URL,
    REUSE_VARIABLE: _REUSE,
    "ATLAS_KV_NAMESPACE_QUOTA_BYTES": (*_POSTGRES, "namespace_quota_bytes"),
    "ATLAS_KV_GLOBAL_QUOTA_BYTES": (*_POSTGRES, "global_quota_bytes"),
    "ATLAS_KV_POOL_SIZE": (*_POSTGRES, "pool", "size"),
    "ATLAS_KV_MAX_OVERFLOW": (*_POSTGRES, "pool", "max_overflow"),
    "ATLAS_KV_POOL_TIMEOUT": (*_POSTGRES, "pool", "timeout"),
    OTHER_URL_VARIABLE: _URL,
    OTHER_REUSE_VARIABLE: _REUSE,
    CONVERSATION_VARIABLE: CONVERSATION_URL,
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
    decided: set[tuple[str, ...]] = {_URL} if reuses else {_REUSE} if names_database else set()
    in_use: dict[str, str] = {}
    for name, path in FALLBACKS.items():
        if not is_blank(environ.get(name)) and path not in decided and is_blank(value_at(data, path)):
            in_use[name] = environ[name].strip()
            decided.add(path)
    return in_use


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


def with_conversation_database(data: Mapping[Any, Any], whole: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return our blocks of a file, with ATLAS's key for the conversation store's url where ours is omitted.

    Args:
        data: Our blocks.
        whole: The whole file.
    """
    url = value_at(whole, OTHER_CONVERSATION_URL)
    if not isinstance(url, str) or is_blank(url) or not is_blank(value_at(data, CONVERSATION_URL)):
        return data
    return _with_value(data, CONVERSATION_URL, url)


def _with_value(data: object, path: Sequence[str], value: object) -> dict[Any, Any]:
    key, *rest = path
    block = data if isinstance(data, Mapping) else {}
    return {**block, key: _with_value(block.get(key), rest, value) if rest else value}
