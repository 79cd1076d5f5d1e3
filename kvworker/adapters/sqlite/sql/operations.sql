-- The steps of an operation, run in one transaction that has the write lock from its beginning. Instants are seconds
-- since 1970 by SQLite's own clock, which stands still within a statement.

-- name: get_entry
-- Read a live entry: its value, its remaining seconds and its version.
SELECT value, expires_at - (julianday('now') - 2440587.5) * 86400.0, version
FROM kv_entries
WHERE namespace = :namespace AND key = :key
    AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)

-- name: find_record
-- Read the record of an operation id.
SELECT fingerprint, result, (julianday('now') - 2440587.5) * 86400.0
FROM kv_operations
WHERE namespace = :namespace AND operation_id = :operation_id

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied or the namespace has no ledger yet.
INSERT INTO kv_operations AS o (namespace, operation_id, fingerprint, result, expires_at)
SELECT :namespace, :operation_id, 'refused', :result, (julianday('now') - 2440587.5) * 86400.0 + :retention_seconds
FROM kv_ledgers WHERE namespace = :namespace
ON CONFLICT (namespace, operation_id) DO UPDATE SET result = o.result || excluded.result, expires_at = excluded.expires_at
WHERE o.fingerprint = 'refused'
RETURNING result

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
DELETE FROM kv_operations
WHERE namespace = :namespace AND operation_id = :operation_id AND fingerprint = 'refused'
RETURNING result

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

-- name: record_operation
-- Record an applied operation.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
VALUES (
    :namespace, :operation_id, :fingerprint, :result,
    (julianday('now') - 2440587.5) * 86400.0 + :retention_seconds
)
