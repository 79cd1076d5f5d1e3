"""The ``sqlite`` adapter: SQLite 3.38 or newer, with its statements in ``sql/``.

May import ``adapters.sql`` and everything that ``adapters.sql`` may import, besides sqlite3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.configuration import adapter_url, engine_for, parse_block
from kvworker.adapters.sqlite.dialect import SqliteDialect
from kvworker.adapters.sqlite.engine import with_absolute_path
from kvworker.settings.adapters import SqliteSettings


def make_adapter(config: Mapping[str, Any]) -> SqlAdapter:
    """Make the adapter from its configuration block.

    Raises:
        ConfigurationError: the block is invalid.
    """
    settings = parse_block("sqlite", SqliteSettings, config)
    url = adapter_url("sqlite", settings, ("sqlite", "sqlite+pysqlite"))
    if url is not None:
        url = with_absolute_path(url)
    dialect = SqliteDialect(settings, url)
    return SqlAdapter(settings, dialect, engine_for("sqlite", dialect, has_url=url is not None))
