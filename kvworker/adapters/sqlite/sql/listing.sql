-- Reading a namespace, page by page.

-- name: list_keys
-- Read live entries in order of their keys. A value is there if values were asked for and it fits, which the last
-- column tells; the first entry always fits.
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
