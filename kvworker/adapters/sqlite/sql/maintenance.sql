-- Batches of sweeps, purges and prunes. Other writers wait for the transaction of a batch.

-- name: find_expired
-- Find expired entries, the longest expired first, and divide them into batches by namespace. Returns no table
-- (there is one), the row ids of each batch's entries, their total number and the latest expiry.
WITH expired AS (
    SELECT rowid, namespace, expires_at FROM kv_entries
    WHERE expires_at >= coalesce(:after, -1e999) AND expires_at <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY expires_at LIMIT :found_rows
), placed AS (
    SELECT rowid AS id, expires_at, (row_number() OVER (ORDER BY namespace, rowid) - 1) / :batch_rows AS batch FROM expired
)
SELECT NULL, json_group_array(id), sum(count(*)) OVER (), max(max(expires_at)) OVER () FROM placed GROUP BY batch

-- name: sweep_batch
-- Delete the entries of a batch that are still expired. Another row may have received an entry's id meanwhile.
DELETE FROM kv_entries
WHERE rowid IN (SELECT value FROM json_each(:places)) AND expires_at <= (julianday('now') - 2440587.5) * 86400.0
RETURNING namespace, size_bytes, reserve

-- name: purge_batch
-- Delete expired entries; of all namespaces if ``namespace`` is null.
DELETE FROM kv_entries
WHERE rowid IN (
    SELECT rowid FROM kv_entries
    WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0 AND (:namespace IS NULL OR namespace = :namespace)
    LIMIT :batch_rows
)
RETURNING namespace, size_bytes, reserve
