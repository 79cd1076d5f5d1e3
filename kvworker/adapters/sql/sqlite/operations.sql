-- The steps of an operation, run in one transaction that has the write lock from its beginning. Instants are
-- seconds since 1970 by SQLite's own clock, which stands still within a statement.

-- name: get_entry
-- Read a live entry and its remaining seconds.
SELECT value, expires_at - (julianday('now') - 2440587.5) * 86400.0
FROM kv_entries
WHERE namespace = :namespace AND key = :key
    AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)

-- name: recorded_operation
-- Read the record of an operation id.
SELECT fingerprint, result, (julianday('now') - 2440587.5) * 86400.0
FROM kv_operations
WHERE namespace = :namespace AND operation_id = :operation_id

-- name: get_counter
-- Read a live counter and the instant when it expires.
SELECT value, expires_at
FROM kv_entries
WHERE namespace = :namespace AND key = :key
    AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)

-- name: set_entry
-- Insert or replace an entry. Without a TTL it expires when the caller says, if at all.
INSERT INTO kv_entries (namespace, key, value, expires_at, size_bytes, previous_bytes)
VALUES (
    :namespace, :key, :text,
    coalesce((julianday('now') - 2440587.5) * 86400.0 + :ttl_seconds, :expires_at), length(CAST(:text AS BLOB)), 0
)
ON CONFLICT (namespace, key) DO UPDATE SET
    value = excluded.value,
    expires_at = excluded.expires_at,
    size_bytes = excluded.size_bytes,
    previous_bytes = kv_entries.size_bytes
RETURNING size_bytes - previous_bytes, previous_bytes = 0, expires_at, (julianday('now') - 2440587.5) * 86400.0

-- name: delete_entry
-- Remove an entry. Whether it was live is told by the caller: SQLite 3.40 gives NULL for "x IS NULL OR x > now" here.
DELETE FROM kv_entries WHERE namespace = :namespace AND key = :key
RETURNING size_bytes, expires_at, (julianday('now') - 2440587.5) * 86400.0

-- name: record_operation
-- Record what an operation did.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
VALUES (
    :namespace, :operation_id, :fingerprint, :result,
    (julianday('now') - 2440587.5) * 86400.0 + :retention_seconds
)
