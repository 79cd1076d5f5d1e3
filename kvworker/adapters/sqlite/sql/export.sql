-- Reading the whole store, page by page.

-- name: export_page
-- Read the live entries that follow a name, in order; of all namespaces if ``namespace`` is null.
SELECT namespace, key, value, expires_at - (julianday('now') - 2440587.5) * 86400.0
FROM kv_entries
WHERE (namespace, key) > (:after_namespace, :after_key)
    AND (:namespace IS NULL OR namespace = :namespace)
    AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)
ORDER BY namespace, key
LIMIT :page_rows

-- name: has_changed
-- Read whether a recorded operation changed an entry of a namespace. The record of one that found none is '' (touch,
-- persist), 'false' (delete) or '0 0' (clear), and that of a quota is ''.
SELECT
-- include: has_changing_record
