"""Entries, ledgers and operation records."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_INSTANT: TypeEngine[Any] = sa.Double().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    _create_entries()
    _create_ledgers()
    _create_operations()


def _create_entries() -> None:
    op.create_table(
        "kv_entries",
        sa.Column("namespace", _NAME, nullable=False),
        sa.Column("key", _NAME, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("expires_at", _INSTANT),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("previous_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key"),
    )
    _set_fillfactor("kv_entries", 85)
    op.create_index(
        "kv_entries_expires_at",
        "kv_entries",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    )


def _create_ledgers() -> None:
    op.create_table(
        "kv_ledgers",
        sa.Column("namespace", _NAME, nullable=False),
        sa.Column("used_bytes", sa.BigInteger, nullable=False),
        sa.Column("entry_count", sa.BigInteger, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger),
        sa.PrimaryKeyConstraint("namespace"),
        sa.CheckConstraint("namespace = '' OR used_bytes <= limit_bytes", name="kv_ledgers_namespace_quota"),
        sa.CheckConstraint("namespace <> '' OR used_bytes <= limit_bytes", name="kv_ledgers_global_quota"),
        sqlite_with_rowid=False,
    )
    _set_fillfactor("kv_ledgers", 50)


def _create_operations() -> None:
    op.create_table(
        "kv_operations",
        sa.Column("namespace", _NAME, nullable=False),
        sa.Column("operation_id", _NAME, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "operation_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("kv_operations_expires_at", "kv_operations", ["expires_at"])


def _set_fillfactor(table: str, percent: int) -> None:
    # SQLAlchemy 2.0 has no postgresql_with for tables.
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
