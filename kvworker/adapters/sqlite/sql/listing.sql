-- Keys, namespaces and ledgers, page by page.

-- name: list_keys
-- Read live entries in order of their keys. The last column says whether the value fits the page; the first one always
-- fits. The value itself is read only if it fits and values were asked for.
SELECT key, version, size_bytes, remaining_seconds,
    CASE WHEN :include_values AND (total_bytes <= :max_bytes OR total_bytes = size_bytes) THEN value END,
    total_bytes <= :max_bytes OR total_bytes = size_bytes
FROM (
    SELECT key, version, size_bytes, expires_at - (julianday('now') - 2440587.5) * 86400.0 AS remaining_seconds,
        value, sum(size_bytes) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING) AS total_bytes
    FROM kv_entries
    WHERE namespace = :namespace AND key > :after AND key >= :prefix AND key < :below
        AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)
    ORDER BY key
    LIMIT :page_rows
)
ORDER BY key

-- name: list_namespaces
-- Read a page of ledgers of namespaces with live entries. Without a prefix, ``below`` is greater than every name.
SELECT namespace, used_bytes, entry_count, record_count, quota_bytes, limit_factor FROM kv_ledgers l
WHERE namespace > :after AND namespace >= :prefix AND namespace < :below AND EXISTS (
        SELECT 1 FROM kv_entries e
        WHERE e.namespace = l.namespace AND (e.expires_at IS NULL OR e.expires_at > (julianday('now') - 2440587.5) * 86400.0)
    )
ORDER BY namespace LIMIT :page_rows

-- name: next_namespace
-- Find the next namespace that has entries or a ledger. The index alone answers this.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > :after
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > :after
) n

-- name: ledger_usage
-- Read one ledger; no row if it does not exist.
SELECT used_bytes, entry_count, record_count, quota_bytes, limit_factor FROM kv_ledgers WHERE namespace = :namespace

-- name: all_usage
-- Read every ledger.
SELECT namespace, used_bytes, entry_count, record_count, quota_bytes, limit_factor FROM kv_ledgers ORDER BY namespace
