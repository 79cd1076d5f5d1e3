-- Reading the whole store, page by page.

-- name: export_page
-- Read the live entries that follow a name, in order; of all namespaces if ``namespace`` is null.
SELECT namespace, key, value, extract(epoch FROM expires_at - clock_timestamp())::float8
FROM kv_entries
WHERE (namespace, key) > (%(after_namespace)s::text, %(after_key)s::text)
    AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s::text)
    AND (expires_at IS NULL OR expires_at > clock_timestamp())
ORDER BY namespace, key
LIMIT %(page_rows)s::bigint

-- name: has_changed
-- Read whether a recorded operation changed an entry of a namespace. The record of one that found none is '' (touch,
-- persist), 'false' (delete) or '0 0' (clear), and that of a quota is ''.
SELECT
-- include: has_changing_record
