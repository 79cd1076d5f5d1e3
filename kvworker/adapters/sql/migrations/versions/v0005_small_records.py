"""Small operation records, and an early vacuum of the tables that every write changes."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_AUTOVACUUM = {
    "kv_entries": "autovacuum_vacuum_scale_factor = 0.05",
    "kv_ledgers": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
    "kv_records": "autovacuum_vacuum_scale_factor = 0.02",
    "kv_operations": "autovacuum_vacuum_scale_factor = 0.02",
    "kv_totals": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
}
#: A partitioned table has no parameters of its own: its partitions have.
_SET_AUTOVACUUM = """DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT CAST(c.oid AS regclass) FROM pg_class c
        WHERE c.relkind = 'r' AND (c.oid = CAST('{table}' AS regclass)
            OR c.oid IN (SELECT relid FROM pg_partition_tree('{table}')))
    LOOP
        EXECUTE 'ALTER TABLE ' || name || ' SET ({parameters})';
    END LOOP;
END $$"""
_EXPIRY_PLACE = "(((stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END) >> 6)"

#: Roles that write records may also write the new table, even if config/grants.sql was not run between the two steps.
_COPY_RIGHTS = """DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT a.privilege_type AS name,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
        FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        WHERE c.oid = CAST('kv_operations' AS regclass) AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE 'GRANT ' || given.name || ' ON kv_records TO ' || given.role;
    END LOOP;
END $$"""


def expand() -> None:
    """Create the table of small records, set when to vacuum, and make room for the mark of an expanded schema."""
    op.add_column("kv_schema_version", sa.Column("expanded", sa.String(32)))
    op.create_table(
        "kv_records",
        sa.Column("stamp", sa.BigInteger, nullable=False),
        sa.Column("request", sa.Integer),
        sa.Column("kept", sa.SmallInteger, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("namespace", _NAME, nullable=False),
        sa.Column("result", sa.Text),
        sa.PrimaryKeyConstraint("namespace", "id"),
        sqlite_with_rowid=False,
    )
    op.create_index("kv_records_expiry", "kv_records", [sa.text(_EXPIRY_PLACE)])
    if op.get_context().dialect.name == "postgresql":
        for table, parameters in _AUTOVACUUM.items():
            op.execute(_SET_AUTOVACUUM.format(table=table, parameters=parameters))


def contract() -> None:
    """Rename the table of the old records: no worker adds to it any more, and it is read until they expire."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(_COPY_RIGHTS)
    op.rename_table("kv_operations", "kv_operations_0004")
