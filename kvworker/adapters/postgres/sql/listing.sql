-- Keys, namespaces and ledgers, page by page.

-- name: list_keys
-- Read live entries in order of their keys. The last column says whether the value fits the page; the first one always
-- fits. The value itself is read only if it fits and values were asked for.
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

-- name: list_namespaces
-- Read a page of ledgers of namespaces with live entries. Without a prefix, ``below`` is greater than every name.
SELECT namespace, sum(used_bytes)::bigint, sum(entry_count)::bigint, sum(record_count)::bigint,
    max(quota_bytes) FILTER (WHERE slot = 0), max(limit_factor)
FROM kv_ledgers l
WHERE namespace > %(after)s AND namespace >= %(prefix)s AND namespace < %(below)s AND EXISTS (
        SELECT 1 FROM kv_entries e
        WHERE e.namespace = l.namespace AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
    )
GROUP BY namespace ORDER BY namespace LIMIT %(page_rows)s::bigint

-- name: next_namespace
-- Find the next namespace that has entries or a ledger. The index alone answers this.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > %(after)s
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > %(after)s
) n

-- name: ledger_usage
-- Read one ledger; no row if it does not exist.
SELECT sum(used_bytes)::bigint, sum(entry_count)::bigint, sum(record_count)::bigint,
    max(quota_bytes) FILTER (WHERE slot = 0), max(limit_factor)
FROM kv_ledgers WHERE namespace = %(namespace)s
GROUP BY namespace

-- name: all_usage
-- Read every ledger.
SELECT namespace, sum(used_bytes)::bigint, sum(entry_count)::bigint, sum(record_count)::bigint,
    max(quota_bytes) FILTER (WHERE slot = 0), max(limit_factor)
FROM kv_ledgers GROUP BY namespace ORDER BY namespace
