-- Reading a namespace, page by page.

-- name: list_keys
-- Read live entries in order of their keys. A value is there if values were asked for and it fits, which the last
-- column tells; the first entry always fits.
SELECT key, version, size_bytes, remaining_seconds,
    CASE WHEN %(include_values)s::boolean AND (total_bytes <= %(max_bytes)s::bigint OR total_bytes = size_bytes)
        THEN value END,
    total_bytes <= %(max_bytes)s::bigint OR total_bytes = size_bytes
FROM (
    SELECT key, version, size_bytes, extract(epoch FROM expires_at - clock_timestamp())::float8 AS remaining_seconds,
        value, sum(size_bytes) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING) AS total_bytes
    FROM kv_entries
    WHERE namespace = %(namespace)s AND key > %(after)s AND key >= %(prefix)s AND key < %(below)s
        AND (expires_at IS NULL OR expires_at > clock_timestamp())
    ORDER BY key
    LIMIT %(page_rows)s::bigint
) page
ORDER BY key
