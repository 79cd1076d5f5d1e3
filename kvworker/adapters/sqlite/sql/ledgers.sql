-- Everything that touches ledgers. On SQLite, with one writer at a time, a ledger is always one row.

-- name: charge_ledger
-- Add the bytes that a write grew by, or subtract those that it shrank by. Growth must fit the namespace's own quota,
-- or else the writer's limit; the table's check applies to the proposed row as well as to the existing one. A write
-- that does not grow raises the limit to what is used, so that it always passes.
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
-- The same for the whole store, if it has a global ledger.
UPDATE kv_ledgers SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :grown_entries,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN :global_limit_bytes
        ELSE max(:global_limit_bytes, used_bytes + :grown_bytes) END
WHERE namespace = ''

-- name: credit_ledger
-- Credit the bytes of deleted entries. Less is used, so the limit still holds.
UPDATE kv_ledgers SET used_bytes = used_bytes - :freed_bytes, entry_count = entry_count - :freed_rows
WHERE namespace = :namespace

-- name: lock_ledger
-- Read a ledger. The transaction already excludes other writers.
SELECT used_bytes, entry_count, quota_bytes FROM kv_ledgers WHERE namespace = :namespace

-- name: create_ledger
-- Create an empty ledger if it does not exist.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (:namespace, 0, 0, NULL) ON CONFLICT DO NOTHING

-- name: set_quota
-- Set or remove a namespace's own quota. Entries stay even if they exceed it.
UPDATE kv_ledgers SET quota_bytes = :quota_bytes, limit_bytes = max(coalesce(:quota_bytes, :limit_bytes), used_bytes)
WHERE namespace = :namespace

-- name: sum_entries
-- Sum up the entries of a namespace.
SELECT coalesce(sum(size_bytes), 0), count(*) FROM kv_entries WHERE namespace = :namespace

-- name: sum_ledgers
-- Sum up the ledgers of all namespaces.
SELECT coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0) FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, raising its limit if necessary.
UPDATE kv_ledgers SET
    used_bytes = :used_bytes, entry_count = :entry_count, limit_bytes = max(limit_bytes, :used_bytes)
WHERE namespace = :namespace

-- name: remove_ledger
-- Remove the ledger of a namespace without entries, unless it keeps the namespace's own quota.
DELETE FROM kv_ledgers WHERE namespace = :namespace AND quota_bytes IS NULL

-- name: lock_ledgers
-- Does nothing: the transaction already excludes other writers.
SELECT 1

-- name: create_global_ledger
-- Start global accounting with what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0), NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
