"""The ``ATLAS_KV_*`` variables: fallbacks for what the file's PostgreSQL adapter block omits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kvworker.settings.adapters import PostgresSettings, configuration_error, drop_omitted
from kvworker.settings.urls import database_url_problem

URL_VARIABLE = "ATLAS_KV_STORE_URL"
REUSE_VARIABLE = "ATLAS_KV_REUSE_CONVERSATION"

_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _url(text: str) -> str:
    if problem := database_url_problem("postgres", text):
        raise ValueError(problem)
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError("it should be true or false")
    return _BOOLEANS[text.lower()]


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        raise ValueError("it should be a whole number, written in digits")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9]{1,40}(\.[0-9]*)?", text):
        raise ValueError("it should be a number, such as 30 or 0.5")
    return float(text)


@dataclass(frozen=True)
class _Variable:
    name: str
    path: tuple[str, ...]
    parse: Callable[[str], Any]


_VARIABLES = (
    _Variable(URL_VARIABLE, ("url",), _url),
    _Variable(REUSE_VARIABLE, ("reuse_conversation_store",), _boolean),
    _Variable("ATLAS_KV_NAMESPACE_QUOTA_BYTES", ("namespace_quota_bytes",), _integer),
    _Variable("ATLAS_KV_GLOBAL_QUOTA_BYTES", ("global_quota_bytes",), _integer),
    _Variable("ATLAS_KV_POOL_SIZE", ("pool", "size"), _integer),
    _Variable("ATLAS_KV_MAX_OVERFLOW", ("pool", "max_overflow"), _integer),
    _Variable("ATLAS_KV_POOL_TIMEOUT", ("pool", "timeout"), _number),
)


def with_fallbacks(block: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """The PostgreSQL adapter's block, completed from the environment where the file says nothing.

    A file that names a database, or asks for the conversation store's, has decided that question: the
    variable of the other answer is then not read.
    """
    merged = dict(block)
    pool = block.get("pool")
    if isinstance(pool, Mapping):
        merged["pool"] = dict(pool)
    decided = _decided(block)
    for variable in _VARIABLES:
        text = environ.get(variable.name, "").strip()
        if text and variable.path not in decided:
            _apply(variable, text, merged, problems)
    _check_contradiction(block, merged, problems)
    return merged


def _decided(block: Mapping[str, Any]) -> set[tuple[str, ...]]:
    given: set[tuple[str, ...]] = {(key,) for key in drop_omitted(block)}
    pool = block.get("pool")
    if isinstance(pool, Mapping):
        given |= {("pool", key) for key in drop_omitted(pool)}
    elif ("pool",) in given:
        given |= {("pool", "size"), ("pool", "max_overflow"), ("pool", "timeout")}
    if block.get("reuse_conversation_store") is True:
        given.add(("url",))
    if ("url",) in given:
        given.add(("reuse_conversation_store",))
    return given


def _apply(variable: _Variable, text: str, block: dict[str, Any], problems: list[str]) -> None:
    shown = "" if variable.name == URL_VARIABLE else f", not {text!r}"
    try:
        value = variable.parse(text)
    except ValueError as error:
        problems.append(f"{variable.name}: {error}{shown}")
        return
    *outer, key = variable.path
    try:
        PostgresSettings.model_validate({outer[0]: {key: value}} if outer else {key: value})
    except ValidationError as error:
        line = str(configuration_error("", error))
        problems.append(variable.name + line.removeprefix(".".join(variable.path)))
        return
    if outer:
        block[outer[0]] = {**(block.get(outer[0]) or {}), key: value}
    else:
        block[key] = value


def _check_contradiction(block: Mapping[str, Any], merged: dict[str, Any], problems: list[str]) -> None:
    """Both variables together ask for two databases; the file's own contradiction is found later."""
    if merged.get("reuse_conversation_store") is True and merged.get("url") and "url" not in drop_omitted(block):
        problems.append(
            f"{REUSE_VARIABLE}: true contradicts {URL_VARIABLE}, which names another database; unset one of them"
        )
        del merged["url"]
