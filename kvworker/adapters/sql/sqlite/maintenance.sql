-- name: sweep_batch
-- Delete expired entries, the longest expired first.
DELETE FROM kv_entries
WHERE rowid IN (
    SELECT rowid FROM kv_entries WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY expires_at LIMIT :batch_rows
)
RETURNING namespace, size_bytes

-- name: purge_batch
-- Delete expired entries of one namespace, or of all when it is null.
DELETE FROM kv_entries
WHERE rowid IN (
    SELECT rowid FROM kv_entries
    WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0 AND (:namespace IS NULL OR namespace = :namespace)
    LIMIT :batch_rows
)
RETURNING namespace, size_bytes

-- name: prune_batch
-- Delete operation records past their retention.
DELETE FROM kv_operations
WHERE (namespace, operation_id) IN (
    SELECT namespace, operation_id FROM kv_operations
    WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY expires_at LIMIT :batch_rows
)
RETURNING 1
