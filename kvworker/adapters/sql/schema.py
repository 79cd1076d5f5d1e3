"""The tables, as SQLAlchemy Core metadata. Migrations create them; a test proves that both agree.

Every table is keyed by namespace first and has no sequence, foreign key, trigger or function, so that it
can be distributed by namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    DDL,
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.types import TypeEngine

from kvworker.adapters.sql.write import Quota

#: The revision that this version of the package makes: the newest file in ``migrations/versions``.
SCHEMA_VERSION = "0005"
#: The revision that the previous release made. This release works with it too, once it is expanded.
PREVIOUS_VERSION = "0004"
VERSION_TABLE = "kv_schema_version"
#: An engine's execution option: the PostgreSQL schema that a migration creates.
SCHEMA_OPTION = "kvworker_schema"

NAMESPACE_QUOTA_CHECK = "kv_ledgers_namespace_quota"
GLOBAL_QUOTA_CHECK = "kv_ledgers_global_quota"
ENTRY_LIMIT_CHECK = "kv_ledgers_entry_limit"
RECORD_LIMIT_CHECK = "kv_ledgers_record_limit"
NAMESPACE_LIMIT_CHECK = "kv_totals_limit"
#: The quota that a write exceeds if the database refuses it by a constraint.
QUOTA_OF_CHECK: Mapping[str, Quota] = {
    NAMESPACE_QUOTA_CHECK: "namespace",
    GLOBAL_QUOTA_CHECK: "store",
    ENTRY_LIMIT_CHECK: "entries",
    RECORD_LIMIT_CHECK: "records",
    NAMESPACE_LIMIT_CHECK: "namespaces",
}
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
    # Operation records that the ledger has counted in advance for writes of this entry, and those of the last write.
    Column("reserve", SmallInteger, nullable=False, server_default=text("1")),
    Column("granted", SmallInteger, nullable=False, server_default=text("0")),
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
    # The factor by which the configured limits of entries and records are multiplied.
    Column("limit_factor", BigInteger, nullable=False, server_default=text("1")),
    Column("entry_limit", BigInteger),
    Column("lent_entries", BigInteger, nullable=False, server_default=text("0")),
    # Operation records, with those that entries hold in reserve.
    Column("record_count", BigInteger, nullable=False, server_default=text("0")),
    Column("record_limit", BigInteger),
    Column("lent_records", BigInteger, nullable=False, server_default=text("0")),
    # A NULL limit passes the checks.
    CheckConstraint("namespace = '' OR used_bytes + lent_bytes <= limit_bytes", name=NAMESPACE_QUOTA_CHECK),
    CheckConstraint("namespace <> '' OR used_bytes + lent_bytes <= limit_bytes", name=GLOBAL_QUOTA_CHECK),
    CheckConstraint("entry_count + lent_entries <= entry_limit", name=ENTRY_LIMIT_CHECK),
    CheckConstraint("record_count + lent_records <= record_limit", name=RECORD_LIMIT_CHECK),
    sqlite_with_rowid=False,
)

#: Operation records. The columns are ordered by their alignment; each dialect's records.sql describes them.
records = Table(
    "kv_records",
    metadata,
    Column("stamp", BigInteger, nullable=False),
    Column("request", Integer),
    Column("kept", SmallInteger, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("namespace", NAME, nullable=False),
    Column("result", Text),
    PrimaryKeyConstraint("namespace", "id"),
    sqlite_with_rowid=False,
)
Index(
    "kv_records_expiry",
    text("(((stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END) >> 6)"),
    _table=records,
)

#: Records from before schema 0005, which are read until they expire. The next release drops it.
previous_records = Table(
    "kv_operations_0004",
    metadata,
    Column("namespace", NAME, primary_key=True),
    Column("operation_id", NAME, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    PrimaryKeyConstraint(name="kv_operations_pkey"),
    Index("kv_operations_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

#: Totals of the whole store: one row, the number of namespaces.
totals = Table(
    "kv_totals",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("total_limit", BigInteger),
    CheckConstraint("total <= total_limit", name=NAMESPACE_LIMIT_CHECK),
    sqlite_with_rowid=False,
)

_PARAMETERS: Mapping[Table, tuple[str, ...]] = {
    entries: ("fillfactor = 85", "autovacuum_vacuum_scale_factor = 0.05"),
    ledgers: ("fillfactor = 50", "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000"),
    records: ("autovacuum_vacuum_scale_factor = 0.02",),
    previous_records: ("autovacuum_vacuum_scale_factor = 0.02",),
    totals: ("autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",),
}
# SQLAlchemy 2.0 has no postgresql_with for tables, and does not annotate DDL.
for _table, _parameters in _PARAMETERS.items():
    for _parameter in _parameters:
        _statement = DDL(f"ALTER TABLE {_table.name} SET ({_parameter})")  # type: ignore[no-untyped-call]
        event.listen(_table, "after_create", _statement.execute_if(dialect="postgresql"))


def works_with(version: str, expanded: str | None) -> bool:
    """Return whether this program works with a schema, which may be expanded for the next release."""
    return version == SCHEMA_VERSION or (version == PREVIOUS_VERSION and (expanded or "") >= SCHEMA_VERSION)
