-- What operators see of the store. Lists arrive as JSON.

-- name: rank_usage
-- Read a page of the namespaces' ledgers in an order, and their number. Only those whose names begin with ``prefix``,
-- hold ``search`` and match a pattern, in which * stands for any run of characters.
SELECT namespace, used_bytes, entry_count, record_count, quota_bytes, limit_factor, count(*) OVER ()
FROM kv_ledgers
WHERE namespace <> '' AND substr(namespace, 1, length(:prefix)) = :prefix AND instr(namespace, :search) > 0 AND (
    :patterns IS NULL OR EXISTS (
        SELECT 1 FROM json_each(:patterns) p
        WHERE namespace GLOB replace(replace(p.value, '[', '[[]'), '?', '[?]')
    )
)
ORDER BY
    :direction * CASE :order_by
        WHEN 'fullness' THEN max(
            used_bytes * 1.0 / coalesce(quota_bytes, :namespace_bytes),
            entry_count * 1.0 / (:entry_limit * limit_factor),
            record_count * 1.0 / (:record_limit * limit_factor)
        )
        WHEN 'used_bytes' THEN used_bytes WHEN 'entry_count' THEN entry_count WHEN 'record_count' THEN record_count
    END,
    CASE WHEN :order_by = 'namespace' AND :descending THEN namespace END DESC,
    namespace
LIMIT :limit OFFSET :offset

-- name: count_expiring
-- Count the entries that expire in each range of seconds from now, at most ``most_rows`` of each; and read how long ago
-- the first one expired.
WITH clock AS MATERIALIZED (SELECT (julianday('now') - 2440587.5) * 86400.0 AS now)
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM kv_entries
            WHERE expires_at > coalesce(c.now + json_extract(r.value, '$[0]'), -1e999)
                AND expires_at <= c.now + json_extract(r.value, '$[1]')
            LIMIT :most_rows
        )
    ),
    c.now - (SELECT min(expires_at) FROM kv_entries WHERE expires_at IS NOT NULL)
FROM clock c, json_each(:ranges) r
ORDER BY r.key

-- name: table_sizes
-- Read the bytes of the database. To tell the tables apart, SQLite would read every page of it.
SELECT 'database', page_count * page_size, NULL, NULL FROM pragma_page_count(), pragma_page_size()
