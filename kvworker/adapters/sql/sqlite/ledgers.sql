-- All that touches ledgers.

-- name: charge_ledger
-- Add what a write grew by, or take what it shrank by. Growth takes the writer's limit, which the table's check
-- enforces; a write that does not grow lifts the limit to what is used, so that it always passes.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (:namespace, :grown_bytes, :new_entries, :limit_bytes)
ON CONFLICT (namespace) DO UPDATE SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :new_entries,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN :limit_bytes ELSE max(:limit_bytes, used_bytes + :grown_bytes) END

-- name: charge_global_ledger
-- The same for the whole store, if it keeps a global ledger.
UPDATE kv_ledgers SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :new_entries,
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

-- name: refused_write
-- Read what a refused write met: the ledger, and the entry it would have replaced.
SELECT
    coalesce((SELECT used_bytes FROM kv_ledgers WHERE namespace = :ledger), 0),
    coalesce((SELECT size_bytes FROM kv_entries WHERE namespace = :namespace AND key = :key), 0),
    (
        SELECT value FROM kv_entries
        WHERE namespace = :namespace AND key = :key
            AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0)
    )

-- name: ledger_usage
-- Read one ledger.
SELECT used_bytes, entry_count FROM kv_ledgers WHERE namespace = :namespace

-- name: all_usage
-- Read every ledger.
SELECT namespace, used_bytes, entry_count FROM kv_ledgers ORDER BY namespace

-- name: next_namespace
-- Find the next namespace that has entries or a ledger, by the index alone.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > :after
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > :after
) n

-- name: lock_ledger
-- Read a ledger. The transaction already keeps other writers out.
SELECT used_bytes, entry_count FROM kv_ledgers WHERE namespace = :namespace

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
-- Remove the ledger of a namespace without entries.
DELETE FROM kv_ledgers WHERE namespace = :namespace

-- name: lock_ledgers
-- The transaction already keeps other writers out.
SELECT 1

-- name: create_global_ledger
-- Start global accounting from what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0), NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
