"""Versions of entries, and own quotas of namespaces."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Neither database rewrites the tables for that."""
    op.add_column("kv_entries", sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")))
    op.add_column("kv_ledgers", sa.Column("quota_bytes", sa.BigInteger))
