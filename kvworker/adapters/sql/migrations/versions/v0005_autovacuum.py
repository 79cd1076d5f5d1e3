"""Vacuum the tables that every write changes early and often."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_AUTOVACUUM = {
    "kv_entries": "autovacuum_vacuum_scale_factor = 0.05",
    "kv_ledgers": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
    "kv_operations": "autovacuum_vacuum_scale_factor = 0.02",
    "kv_totals": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
}


def expand() -> None:
    """Set when to vacuum each table, and make room for the mark of an expanded schema."""
    op.add_column("kv_schema_version", sa.Column("expanded", sa.String(32)))
    if op.get_context().dialect.name == "postgresql":
        for table, parameters in _AUTOVACUUM.items():
            op.execute(f"ALTER TABLE {table} SET ({parameters})")


def contract() -> None:
    """Change nothing but the version, which workers of release 0.1 refuse."""
