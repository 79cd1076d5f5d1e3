"""Limits of entries, operation records and namespaces."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns, and count the namespaces.

    Nothing counts the records of before: the next recompute does. SQLite must copy the ledgers to add checks.
    """
    for column in ("reserve", "granted"):
        default = sa.text("1" if column == "reserve" else "0")
        op.add_column("kv_entries", sa.Column(column, sa.SmallInteger, nullable=False, server_default=default))
    if op.get_context().dialect.name == "sqlite":
        _copy_ledgers()
    else:
        _alter_ledgers()
    op.create_table(
        "kv_totals",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("total_limit", sa.BigInteger),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("total <= total_limit", name="kv_totals_limit"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO kv_totals (name, total)"
        " SELECT 'namespaces', count(*) FROM kv_ledgers WHERE namespace <> '' AND slot = 0"
    )


def _new_checks() -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint("entry_count + lent_entries <= entry_limit", name="kv_ledgers_entry_limit"),
        sa.CheckConstraint("record_count + lent_records <= record_limit", name="kv_ledgers_record_limit"),
    ]


def _new_columns() -> list[sa.Column[int]]:
    return [
        sa.Column("limit_factor", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("entry_limit", sa.BigInteger),
        sa.Column("lent_entries", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("record_count", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("record_limit", sa.BigInteger),
        sa.Column("lent_records", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    ]


def _alter_ledgers() -> None:
    for column in _new_columns():
        op.add_column("kv_ledgers", column)
    for check in _new_checks():
        op.create_check_constraint(str(check.name), "kv_ledgers", check.sqltext)
    # Shares of before know only bytes. Writers split the ledgers again where they meet.
    op.execute(
        "WITH gone AS (DELETE FROM kv_ledgers WHERE slot > 0 RETURNING namespace, used_bytes, entry_count), total AS ("
        "SELECT namespace, sum(used_bytes)::bigint AS used_bytes, sum(entry_count)::bigint AS entry_count"
        " FROM gone GROUP BY namespace"
        ") UPDATE kv_ledgers l SET used_bytes = l.used_bytes + t.used_bytes,"
        " entry_count = l.entry_count + t.entry_count, lent_bytes = 0"
        " FROM total t WHERE l.namespace = t.namespace AND l.slot = 0"
    )


def _copy_ledgers() -> None:
    op.rename_table("kv_ledgers", "kv_ledgers_0003")
    op.create_table(
        "kv_ledgers",
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("used_bytes", sa.BigInteger, nullable=False),
        sa.Column("entry_count", sa.BigInteger, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger),
        sa.Column("quota_bytes", sa.BigInteger),
        sa.Column("slot", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("lent_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        *_new_columns(),
        sa.PrimaryKeyConstraint("namespace", "slot"),
        sa.CheckConstraint(
            "namespace = '' OR used_bytes + lent_bytes <= limit_bytes", name="kv_ledgers_namespace_quota"
        ),
        sa.CheckConstraint("namespace <> '' OR used_bytes + lent_bytes <= limit_bytes", name="kv_ledgers_global_quota"),
        *_new_checks(),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes, quota_bytes, slot, lent_bytes)"
        " SELECT namespace, used_bytes, entry_count, limit_bytes, quota_bytes, slot, lent_bytes FROM kv_ledgers_0003"
    )
    op.drop_table("kv_ledgers_0003")
