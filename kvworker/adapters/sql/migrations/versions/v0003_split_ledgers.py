"""Ledgers that consist of several rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHECKS = (
    sa.CheckConstraint("namespace = '' OR used_bytes + lent_bytes <= limit_bytes", name="kv_ledgers_namespace_quota"),
    sa.CheckConstraint("namespace <> '' OR used_bytes + lent_bytes <= limit_bytes", name="kv_ledgers_global_quota"),
)


def upgrade() -> None:
    """Allow a ledger several rows. SQLite must copy the table for that; PostgreSQL alters it."""
    if op.get_context().dialect.name == "sqlite":
        _copy()
    else:
        _alter()


def _new_columns() -> list[sa.Column[int]]:
    return [
        sa.Column("slot", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("lent_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    ]


def _alter() -> None:
    for column in _new_columns():
        op.add_column("kv_ledgers", column)
    op.drop_constraint("kv_ledgers_pkey", "kv_ledgers")
    op.create_primary_key("kv_ledgers_pkey", "kv_ledgers", ["namespace", "slot"])
    for check in _CHECKS:
        op.drop_constraint(str(check.name), "kv_ledgers")
        op.create_check_constraint(str(check.name), "kv_ledgers", check.sqltext)


def _copy() -> None:
    op.rename_table("kv_ledgers", "kv_ledgers_0002")
    op.create_table(
        "kv_ledgers",
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("used_bytes", sa.BigInteger, nullable=False),
        sa.Column("entry_count", sa.BigInteger, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger),
        sa.Column("quota_bytes", sa.BigInteger),
        *_new_columns(),
        sa.PrimaryKeyConstraint("namespace", "slot"),
        *_CHECKS,
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes, quota_bytes)"
        " SELECT namespace, used_bytes, entry_count, limit_bytes, quota_bytes FROM kv_ledgers_0002"
    )
    op.drop_table("kv_ledgers_0002")
