-- The state of the database.

-- name: schema_version
-- Read the version of the schema: the last applied migration.
SELECT version_num FROM kv_schema_version

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT (julianday('now') - 2440587.5) * 86400.0
