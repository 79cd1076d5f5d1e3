"""The ``postgres`` adapter: PostgreSQL 14 or newer through psycopg, with its statements in ``sql/``.

May import ``adapters.sql`` and everything that ``adapters.sql`` may import, besides psycopg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg.pq import Conninfo
from sqlalchemy.engine import URL

from kvworker.adapters.postgres.dialect import PostgresDialect
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.configuration import adapter_url, engine_for, parse_block, path_of
from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import PostgresSettings

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")


def make_adapter(config: Mapping[str, Any]) -> SqlAdapter:
    """Make the adapter from its configuration block.

    Raises:
        ConfigurationError: the block is invalid.
    """
    settings = parse_block("postgres", PostgresSettings, config)
    url = adapter_url("postgres", settings, _SCHEMES)
    if url is not None:
        _check_parameters(url)
        url = _with_hidden_password(url)
    elif settings.schema is not None:
        raise ConfigurationError(
            f"{path_of('postgres')}.schema: the host program's engine decides the schema; set its search_path, or set a"
            " url here or in conversation_store"
        )
    dialect = PostgresDialect(settings, url)
    return SqlAdapter(settings, dialect, engine_for("postgres", dialect, has_url=url is not None))


def _check_parameters(url: URL) -> None:
    """Refuse unknown parameters of libpq. SQLAlchemy would pass them to psycopg as text, whatever type it expects."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name in url.query:
        if name not in known:
            raise ConfigurationError(
                f"{path_of('postgres')}.url: the parameter {name!r} is none of PostgreSQL's connection parameters;"
                " remove it, or set it beside the url if it is a key of this block"
            )


def _with_hidden_password(url: URL) -> URL:
    """Move a password from the parameters, which an engine's repr shows, to the place where the repr masks it."""
    password = url.query.get("password")
    if not isinstance(password, str):
        return url
    return url.difference_update_query(["password"]).set(password=password)
