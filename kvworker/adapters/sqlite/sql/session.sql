-- The state of the database.

-- name: schema_version
-- Read the version of the schema, and the one that it is expanded to. That column may be missing.
SELECT * FROM kv_schema_version

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT (julianday('now') - 2440587.5) * 86400.0
