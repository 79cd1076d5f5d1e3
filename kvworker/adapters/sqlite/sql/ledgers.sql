-- All that touches ledgers.

-- name: charge_ledger
-- Add what a write grew by, or take what it shrank by. Growth takes the namespace's own quota or else the writer's
-- limit, which the table's check enforces, on the row that is proposed as well as on the one that is there; a write
-- that does not grow lifts the limit to what is used, so that it always passes.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (
    :namespace, :grown_bytes, :grown_entries,
    coalesce((SELECT quota_bytes FROM kv_ledgers WHERE namespace = :namespace), :limit_bytes)
)
ON CONFLICT (namespace, slot) DO UPDATE SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :grown_entries,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN coalesce(quota_bytes, :limit_bytes)
        ELSE max(coalesce(quota_bytes, :limit_bytes), used_bytes + :grown_bytes) END

-- name: charge_global_ledger
-- The same for the whole store, if it keeps a global ledger.
UPDATE kv_ledgers SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :grown_entries,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN :global_limit_bytes
        ELSE max(:global_limit_bytes, used_bytes + :grown_bytes) END
WHERE namespace = ''

-- name: credit_ledger
-- Give the bytes of deleted entries back. The limit holds all the more.
UPDATE kv_ledgers SET used_bytes = used_bytes - :freed_bytes, entry_count = entry_count - :freed_rows
WHERE namespace = :namespace

-- name: schema_version
-- Read what migrations were applied.
SELECT version_num FROM kv_schema_version

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT (julianday('now') - 2440587.5) * 86400.0

-- name: ledger_usage
-- Read one ledger.
SELECT used_bytes, entry_count, quota_bytes FROM kv_ledgers WHERE namespace = :namespace

-- name: list_namespaces
-- Read a page of the ledgers of namespaces that have live entries. No name is as great as the greatest ``below``.
SELECT namespace, used_bytes, entry_count, quota_bytes FROM kv_ledgers l
WHERE namespace > :after AND namespace >= :prefix AND namespace < :below AND EXISTS (
        SELECT 1 FROM kv_entries e
        WHERE e.namespace = l.namespace AND (e.expires_at IS NULL OR e.expires_at > (julianday('now') - 2440587.5) * 86400.0)
    )
ORDER BY namespace LIMIT :page_rows

-- name: set_quota
-- Give a ledger a quota of the namespace's own, or none. What is used stays, above it if need be.
UPDATE kv_ledgers SET quota_bytes = :quota_bytes, limit_bytes = max(coalesce(:quota_bytes, :limit_bytes), used_bytes)
WHERE namespace = :namespace

-- name: all_usage
-- Read every ledger.
SELECT namespace, used_bytes, entry_count, quota_bytes FROM kv_ledgers ORDER BY namespace

-- name: next_namespace
-- Find the next namespace that has entries or a ledger, by the index alone.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > :after
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > :after
) n

-- name: lock_ledger
-- Read a ledger. The transaction already keeps other writers out.
SELECT used_bytes, entry_count, quota_bytes FROM kv_ledgers WHERE namespace = :namespace

-- name: create_ledger
-- Make an empty ledger where there is none.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (:namespace, 0, 0, NULL) ON CONFLICT DO NOTHING

-- name: sum_entries
-- Count what a namespace's entries use.
SELECT coalesce(sum(size_bytes), 0), count(*) FROM kv_entries WHERE namespace = :namespace

-- name: sum_ledgers
-- Count what all namespaces use.
SELECT coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0) FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, above its limit if need be.
UPDATE kv_ledgers SET
    used_bytes = :used_bytes, entry_count = :entry_count, limit_bytes = max(limit_bytes, :used_bytes)
WHERE namespace = :namespace

-- name: remove_ledger
-- Remove the ledger of a namespace without entries, unless it keeps a quota of its own.
DELETE FROM kv_ledgers WHERE namespace = :namespace AND quota_bytes IS NULL

-- name: lock_ledgers
-- The transaction already keeps other writers out.
SELECT 1

-- name: create_global_ledger
-- Start global accounting from what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0), NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
