"""The ``postgres`` adapter: PostgreSQL 14 or newer through psycopg, with its statements in ``sql/``.

May import ``adapters.sql`` and everything that ``adapters.sql`` may import, besides psycopg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.engine import URL

from kvworker.adapters.postgres.dialect import PostgresDialect
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.configuration import adapter_url, engine_for, parse_block
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
        url = _with_hidden_password(url)
    dialect = PostgresDialect(settings, url)
    return SqlAdapter(settings, dialect, engine_for("postgres", dialect, has_url=url is not None))


def _with_hidden_password(url: URL) -> URL:
    """Move a password from the parameters, which an engine's repr shows, to the place where the repr masks it."""
    password = url.query.get("password")
    if not isinstance(password, str):
        return url
    return url.difference_update_query(["password"]).set(password=password)
