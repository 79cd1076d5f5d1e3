-- The state of the database and of a connection's transaction.

-- name: schema_version
-- Read the version of the schema, and the one that it is expanded to: null if the column is missing.
SELECT version_num, to_jsonb(v) ->> 'expanded' FROM kv_schema_version v

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: begin
-- Begin a transaction whose statements each see everything committed before them.
BEGIN ISOLATION LEVEL READ COMMITTED

-- name: bound_transaction
-- Bound the transaction that applies many operations: it gives up on a lock after 50 ms, and if its process freezes, it
-- keeps its own locks for no more than 1 s.
SELECT set_config('lock_timeout', '50ms', true), set_config('idle_in_transaction_session_timeout', '1s', true)

-- name: bound_lock_waits
-- Give up on a lock after 50 ms, for the rest of the transaction.
SELECT set_config('lock_timeout', '50ms', true)

-- name: bound_inspection
-- Give up on a lock after half a second, for the rest of the transaction.
SELECT set_config('lock_timeout', '500ms', true)

-- name: missing_rights
-- Tell whether the server is a standby, and which rights on the tables this user lacks: null if none.
SELECT pg_is_in_recovery(), string_agg(needed.privilege || ' on ' || needed.name, ', ')
    FILTER (WHERE NOT has_table_privilege(needed.name, needed.privilege))
FROM (
    SELECT t.name, p.privilege
    FROM (VALUES ('kv_entries'), ('kv_ledgers'), ('kv_totals'),
-- include: record_tables
        ) AS t(name),
        (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(privilege)
) needed
