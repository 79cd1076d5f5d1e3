"""The ``sqlite`` adapter: SQLite 3.38 or newer, with its statements in ``sql/``.

May import ``adapters.sql`` and everything that ``adapters.sql`` may import, besides sqlite3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.configuration import adapter_url, engine_for, parse_block, path_of
from kvworker.adapters.sqlite.dialect import SqliteDialect
from kvworker.adapters.sqlite.engine import with_absolute_path
from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import SqliteSettings
from kvworker.settings.url_parameters import sqlite_url_problem


def make_adapter(config: Mapping[str, Any]) -> SqlAdapter:
    """Make the adapter from its configuration block.

    Raises:
        ConfigurationError: the block is invalid.
    """
    settings = parse_block("sqlite", SqliteSettings, config)
    url = adapter_url("sqlite", settings, ("sqlite", "sqlite+pysqlite"))
    if url is not None:
        _check_url(settings)
        url = with_absolute_path(url)
    dialect = SqliteDialect(settings, url)
    return SqlAdapter(settings, dialect, engine_for("sqlite", dialect, has_url=url is not None))


def _check_url(settings: SqliteSettings) -> None:
    """Check a url that no ``Settings`` checked before: a program may create an adapter itself."""
    if settings.url and (problem := sqlite_url_problem(settings.url.get_secret_value())):
        raise ConfigurationError(f"{path_of('sqlite')}.url: {problem}")
