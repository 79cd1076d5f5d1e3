"""The environment variables that stand in for what the configuration file omits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvworker.errors import ConfigurationError
from kvworker.settings.base import is_blank
from kvworker.settings.url_files import UrlFile, read_secret_file

CONFIG_VARIABLE = "KVWORKER_CONFIG"
#: The address of a worker's metrics. All processes share the settings file, so it cannot hold this.
METRICS_VARIABLE = "KVWORKER_METRICS_LISTEN"
#: The log format of a worker or beat: text or JSON. It belongs to one process too.
LOG_FORMAT_VARIABLE = "KVWORKER_LOG_FORMAT"
LOG_FORMATS = ("text", "json")
#: The switch for a worker's export of spans; anything but 0 and "" turns it on.
TRACES_VARIABLE = "KVWORKER_TRACES"
SIGNING_KEY_VARIABLE = "KVWORKER_SIGNING_KEY"
PREVIOUS_KEYS_VARIABLE = "KVWORKER_PREVIOUS_SIGNING_KEYS"
BROKER_VARIABLE = "KVWORKER_BROKER_URL"
RESULTS_VARIABLE = "KVWORKER_RESULT_BACKEND"
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
    PREVIOUS_KEYS_VARIABLE: ("policies", "previous_signing_keys"),
    BROKER_VARIABLE: ("queue", "broker_url"),
    RESULTS_VARIABLE: ("queue", "result_backend"),
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

#: Variables that may hold a secret. The variable of the same name with ``_FILE`` names a file that holds it instead.
SECRET_VARIABLES = (
    SIGNING_KEY_VARIABLE,
    PREVIOUS_KEYS_VARIABLE,
    BROKER_VARIABLE,
    RESULTS_VARIABLE,
    URL_VARIABLE,
    OTHER_URL_VARIABLE,
    CONVERSATION_VARIABLE,
)


_URL_VARIABLES = tuple(name for name in SECRET_VARIABLES if name not in {SIGNING_KEY_VARIABLE, PREVIOUS_KEYS_VARIABLE})


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

    Raises:
        ConfigurationError: A file that a variable names cannot be read, or a variable is given both ways.
    """
    reuses = value_at(data, _REUSE) is True
    names_database = not is_blank(value_at(data, _URL))
    decided: set[tuple[str, ...]] = {_URL} if reuses else {_REUSE} if names_database else set()
    in_use: dict[str, str] = {}
    for name, path in FALLBACKS.items():
        if path in decided or not is_blank(value_at(data, path)):
            continue
        if value := _value_of(name, environ):
            in_use[name] = value
            decided.add(path)
    return in_use


def given_as(name: str, environ: Mapping[str, str]) -> str:
    """Return the name of the variable that gives a value: this one, or the one that names a file."""
    return name if not is_blank(environ.get(name)) else f"{name}_FILE"


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


def _value_of(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "").strip()
    file = environ.get(f"{name}_FILE", "").strip() if name in SECRET_VARIABLES else ""
    if value and file:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; unset one of them")
    return read_secret_file(f"{name}_FILE", Path(file)) if file else value


def url_files_in_use(data: Mapping[Any, Any], environ: Mapping[str, str]) -> dict[tuple[str, ...], UrlFile]:
    """Return the files from which the environment gives URLs that apply, by the path of the setting.

    Raises:
        ConfigurationError: As ``variables_in_use`` does.
    """
    return {
        FALLBACKS[name]: UrlFile(given_as(name, environ), Path(environ[given_as(name, environ)].strip()), value)
        for name, value in variables_in_use(data, environ).items()
        if name in _URL_VARIABLES and given_as(name, environ) != name
    }


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
