"""The choices that a configuration written for ATLAS leaves open, and what kvworker makes of each.

The seed of both programs says: a URL is for a dedicated database, the variables stand in for what the PostgreSQL
adapter's block omits, and each adapter has its own quotas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kvworker.settings.base import is_blank
from kvworker.settings.environment import (
    CONVERSATION_URL,
    CONVERSATION_VARIABLE,
    FALLBACKS,
    OTHER_CONVERSATION_URL,
    OTHER_REUSE_VARIABLE,
    OTHER_URL_VARIABLE,
    REUSE_VARIABLE,
    URL_VARIABLE,
    given_as,
    value_at,
    variables_in_use,
)

if TYPE_CHECKING:
    from kvworker.settings.store import KvStoreSettings

_POSTGRES = "tools.kv_store.adapters.postgres"
_TRUE = ("true", "1", "yes", "on")


def atlas_choices(
    whole: Mapping[Any, Any], environ: Mapping[str, str], store: KvStoreSettings, *, has_conversation_url: bool
) -> Iterator[str]:
    """Yield a line for each choice that ATLAS would make in another way, and for each name that only ATLAS documents.

    Args:
        whole: The whole file.
        environ: The environment variables.
        store: The ``tools.kv_store`` block, complete.
        has_conversation_url: True if a database of the conversation store is configured.
    """
    in_use = variables_in_use(whole, environ)
    for name in (OTHER_URL_VARIABLE, OTHER_REUSE_VARIABLE, CONVERSATION_VARIABLE):
        if name in in_use:
            yield f"{given_as(name, environ)} stands in for {'.'.join(FALLBACKS[name])}"
    if is_blank(value_at(whole, CONVERSATION_URL)) and not is_blank(value_at(whole, OTHER_CONVERSATION_URL)):
        yield f"{'.'.join(OTHER_CONVERSATION_URL)} stands in for {'.'.join(CONVERSATION_URL)}"
    if store.default_adapter == "postgres":
        yield from _database_choices(environ, store, has_conversation_url=has_conversation_url)
    if store.default_adapter == "sqlite":
        yield from _quota_choices(store)


def _database_choices(
    environ: Mapping[str, str], store: KvStoreSettings, *, has_conversation_url: bool
) -> Iterator[str]:
    postgres = store.adapters.postgres
    if postgres.url is not None:
        for name in (REUSE_VARIABLE, OTHER_REUSE_VARIABLE):
            if environ.get(name, "").strip().lower() in _TRUE:
                yield f"{name} is ignored, since {_POSTGRES}.url names a database: the store uses that one"
        if postgres.reuse_conversation_store is None and has_conversation_url:
            yield f"the store uses the database of {_POSTGRES}.url and not the conversation store's"
    elif postgres.reuse_conversation_store:
        for name in (URL_VARIABLE, f"{URL_VARIABLE}_FILE", OTHER_URL_VARIABLE, f"{OTHER_URL_VARIABLE}_FILE"):
            if not is_blank(environ.get(name)):
                yield f"{name} is ignored: {_POSTGRES}.reuse_conversation_store: true chooses the conversation store's"


def _quota_choices(store: KvStoreSettings) -> Iterator[str]:
    for key in ("namespace_quota_bytes", "global_quota_bytes"):
        given = [name for name in ("postgres", "sqlite") if key in getattr(store.adapters, name).model_fields_set]
        if given == ["postgres"]:
            used = getattr(store.adapters.sqlite, key)
            yield f"{_POSTGRES}.{key} does not apply to the sqlite adapter, whose own is {used or 'none'}"
