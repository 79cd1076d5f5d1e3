"""Reads the key-value store of ATLAS: the table ``kv_entries`` with JSON values, and expiries in seconds since 1970."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kvworker.client.sync import KeyValueStore
from kvworker.errors import ConfigurationError
from kvworker.wording import counted

_PAGE_ROWS = 500
_ENTRIES = sa.table(
    "kv_entries",
    sa.column("namespace"),
    sa.column("key"),
    sa.column("value"),
    sa.column("expires_at"),
    sa.column("size_bytes"),
)


@dataclass(frozen=True)
class NamespaceContent:
    """The content of a namespace in ATLAS's store. ``size_bytes`` is the sum of its values' JSON."""

    namespace: str
    entries: int
    size_bytes: int


class AtlasStore:
    """The live entries of a database of ATLAS.

    Args:
        url: Its PostgreSQL or SQLite database.

    Raises:
        ConfigurationError: The url is none of these.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse_url(url)
        self._engine = sa.create_engine(self._url)
        self._is_live = sa.or_(_ENTRIES.c.expires_at.is_(None), _ENTRIES.c.expires_at > time.time())

    def contents(self) -> list[NamespaceContent]:
        """Return what each namespace holds, in order.

        Raises:
            ConfigurationError: The database cannot be read, or has no such table.
        """
        columns = (_ENTRIES.c.namespace, sa.func.count(), sa.func.sum(_ENTRIES.c.size_bytes))
        query = sa.select(*columns).where(self._is_live).group_by(_ENTRIES.c.namespace).order_by(_ENTRIES.c.namespace)
        with self._reading() as connection:
            return [NamespaceContent(name, count, int(size)) for name, count, size in connection.execute(query)]

    def lines(self) -> Iterator[bytes]:
        """Yield each live entry as a line for an import.

        Raises:
            ConfigurationError: The database cannot be read.
        """
        text = sa.cast(_ENTRIES.c.value, sa.Text)
        query = sa.select(_ENTRIES.c.namespace, _ENTRIES.c.key, text, _ENTRIES.c.expires_at).where(self._is_live)
        with self._reading() as connection:
            rows = connection.execution_options(yield_per=_PAGE_ROWS).execute(query)
            for namespace, key, value, expires_at in rows:
                data = {"namespace": namespace, "key": key, "value": json.loads(value)}
                if expires_at is not None:
                    # It may expire while it is copied.
                    data["ttl_seconds"] = max(0.001, expires_at - time.time())
                yield json.dumps(data).encode() + b"\n"

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
            if self._url.password:
                reason = reason.replace(str(self._url.password), "***")
            raise ConfigurationError(f"--from-atlas: the table kv_entries of ATLAS cannot be read: {reason}") from None


def check_room(store: KeyValueStore, contents: list[NamespaceContent]) -> None:
    """Check that the quotas have room for every namespace before anything is written.

    Raises:
        ConfigurationError: They have not. It has a line for each namespace, with the command that helps.
    """
    lines = [line for content in contents if (line := _lack_of(store, content))]
    total = store.usage()
    size_bytes = sum(content.size_bytes for content in contents)
    if total.quota_bytes is not None and total.used_bytes + size_bytes > total.quota_bytes:
        lines.append(
            f"the entries have {counted(size_bytes, 'byte')}, and the global quota is {total.quota_bytes}; raise it"
        )
    if lines:
        raise ConfigurationError("\n".join(lines))


def _lack_of(store: KeyValueStore, content: NamespaceContent) -> str:
    usage = store.usage(content.namespace)
    name = repr(content.namespace)
    if usage.quota_bytes is not None and usage.used_bytes + content.size_bytes > usage.quota_bytes:
        wanted = counted(usage.used_bytes + content.size_bytes, "byte")
        return f"namespace {name} needs {wanted}, and its quota is {usage.quota_bytes}; `kvworker quota` raises it"
    if usage.entry_limit is not None and usage.entry_count + content.entries > usage.entry_limit:
        wanted = counted(usage.entry_count + content.entries, "entry", "entries")
        return f"namespace {name} needs {wanted}, and its limit is {usage.entry_limit}; `kvworker quota` raises it"
    return ""


def _parse_url(text: str) -> URL:
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "--from-atlas: not a database url, such as postgresql://user:password@host/db"
        ) from None
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        return url
    raise ConfigurationError(f"--from-atlas: {url.get_backend_name()} is neither postgresql nor sqlite")
