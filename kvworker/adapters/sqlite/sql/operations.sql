-- The steps of an operation, run in one transaction that has the write lock from its beginning. Instants are seconds
-- since 1970 by SQLite's own clock, which stands still within a statement.

-- name: get_entry
-- Read a live entry: its value, its remaining seconds and its version.
SELECT value, expires_at - (julianday('now') - 2440587.5) * 86400.0, version
FROM kv_entries
WHERE namespace = :namespace AND key = :key
    AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)

-- name: read_entry
-- Read an entry, live or expired.
SELECT key, value, expires_at, size_bytes, version, reserve FROM kv_entries WHERE namespace = :namespace AND key = :key

-- name: store_entry
-- Insert or replace an entry as planned; a null text keeps the value.
INSERT INTO kv_entries (namespace, key, value, expires_at, size_bytes, previous_bytes, version, reserve)
VALUES (:namespace, :key, coalesce(:text, ''), :expires_at, :size_bytes, 0, :version, :reserve)
ON CONFLICT (namespace, key) DO UPDATE SET
    value = coalesce(:text, value),
    expires_at = excluded.expires_at,
    size_bytes = excluded.size_bytes,
    previous_bytes = kv_entries.size_bytes,
    version = excluded.version,
    reserve = excluded.reserve

-- name: delete_entry
-- Remove an entry.
DELETE FROM kv_entries WHERE namespace = :namespace AND key = :key

-- name: delete_entries
-- Remove all entries of a namespace.
DELETE FROM kv_entries WHERE namespace = :namespace
RETURNING size_bytes, expires_at, reserve
