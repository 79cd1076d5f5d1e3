"""The tables, as SQLAlchemy Core metadata. Migrations create them; a test proves that both agree.

Every table is keyed by namespace first and has no sequence, foreign key, trigger or function, so that it
can be distributed by namespace.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    MetaData,
    SmallInteger,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.types import TypeEngine

#: The revision that this version of the package works with: the newest file in ``migrations/versions``.
SCHEMA_VERSION = "0003"
VERSION_TABLE = "kv_schema_version"

NAMESPACE_QUOTA_CHECK = "kv_ledgers_namespace_quota"
GLOBAL_QUOTA_CHECK = "kv_ledgers_global_quota"
#: The name of the global ledger's row. A namespace is never blank.
GLOBAL_LEDGER = ""

#: Order by bytes: it is cheaper, and the same on every server.
NAME = Text().with_variant(Text(collation="C"), "postgresql")
#: SQLite has no timestamp type; there it is seconds since 1970 by SQLite's own clock.
INSTANT: TypeEngine[Any] = Double().with_variant(TIMESTAMP(timezone=True), "postgresql")

metadata = MetaData()

entries = Table(
    "kv_entries",
    metadata,
    Column("namespace", NAME, primary_key=True),
    Column("key", NAME, primary_key=True),
    Column("value", Text, nullable=False),
    Column("expires_at", INSTANT),
    Column("size_bytes", BigInteger, nullable=False),
    Column("previous_bytes", BigInteger, nullable=False),
    # The default is for entries from before entries had versions.
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Index(
        "kv_entries_expires_at",
        "expires_at",
        postgresql_where=text("expires_at IS NOT NULL"),
        sqlite_where=text("expires_at IS NOT NULL"),
    ),
)

ledgers = Table(
    "kv_ledgers",
    metadata,
    Column("namespace", NAME, primary_key=True),
    Column("used_bytes", BigInteger, nullable=False),
    Column("entry_count", BigInteger, nullable=False),
    Column("limit_bytes", BigInteger),
    # The namespace's own quota, if it has one; limit_bytes is the quota that the last write had to keep.
    Column("quota_bytes", BigInteger),
    # A ledger is the row of slot 0, and has more rows while it is split (only on PostgreSQL, see its ledgers.sql).
    Column("slot", SmallInteger, primary_key=True, autoincrement=False, server_default=text("0")),
    # The sum of the other slots' limits.
    Column("lent_bytes", BigInteger, nullable=False, server_default=text("0")),
    # A NULL limit passes both checks.
    CheckConstraint("namespace = '' OR used_bytes + lent_bytes <= limit_bytes", name=NAMESPACE_QUOTA_CHECK),
    CheckConstraint("namespace <> '' OR used_bytes + lent_bytes <= limit_bytes", name=GLOBAL_QUOTA_CHECK),
    sqlite_with_rowid=False,
)

operations = Table(
    "kv_operations",
    metadata,
    Column("namespace", NAME, primary_key=True),
    Column("operation_id", NAME, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Index("kv_operations_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

# SQLAlchemy 2.0 has no postgresql_with for tables, and does not annotate DDL.
for _table, _percent in ((entries, 85), (ledgers, 50)):
    _statement = DDL(f"ALTER TABLE {_table.name} SET (fillfactor = {_percent})")  # type: ignore[no-untyped-call]
    event.listen(_table, "after_create", _statement.execute_if(dialect="postgresql"))
