-- Everything that touches ledgers. On SQLite, with one writer at a time, a ledger is always one row.

-- name: charge_ledger
-- Add the bytes, entries and operation records that a write grew by, or subtract those that it shrank by. Growth must
-- fit the namespace's own quota, or else the writer's limit. A write that does not grow raises the limit to what is
-- used, so that it always passes. Returns no row if there is no ledger.
UPDATE kv_ledgers SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :grown_entries,
    record_count = record_count + :grown_records,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN coalesce(quota_bytes, :limit_bytes)
        ELSE max(coalesce(quota_bytes, :limit_bytes), used_bytes + :grown_bytes) END,
    entry_limit = CASE WHEN :grown_entries > 0 THEN :entry_limit * limit_factor
        ELSE max(:entry_limit * limit_factor, entry_count + :grown_entries) END,
    record_limit = CASE WHEN :grown_records > 0 THEN :record_limit * limit_factor
        ELSE max(:record_limit * limit_factor, record_count + :grown_records) END
WHERE namespace = :namespace
RETURNING 1

-- name: charge_global_ledger
-- The same for the whole store, if it has a global ledger.
UPDATE kv_ledgers SET
    used_bytes = used_bytes + :grown_bytes,
    entry_count = entry_count + :grown_entries,
    limit_bytes = CASE WHEN :grown_bytes > 0 THEN :global_limit
        ELSE max(:global_limit, used_bytes + :grown_bytes) END
WHERE namespace = ''

-- name: credit_ledger
-- Credit deleted entries and records. Less is used, so the limits still hold.
UPDATE kv_ledgers SET
    used_bytes = used_bytes - :freed_bytes,
    entry_count = entry_count - :freed_rows,
    record_count = record_count - :freed_records
WHERE namespace = :namespace

-- name: lock_ledger
-- Read a ledger. The transaction already excludes other writers.
SELECT used_bytes, entry_count, record_count, quota_bytes, limit_factor FROM kv_ledgers WHERE namespace = :namespace

-- name: create_ledger
-- Create an empty ledger if it does not exist. Counts no namespace.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (:namespace, 0, 0, NULL) ON CONFLICT DO NOTHING
RETURNING 1

-- name: found_namespace
-- Count a new namespace.
UPDATE kv_totals SET total = total + 1, total_limit = :namespace_limit WHERE name = 'namespaces'

-- name: remove_empty_ledgers
-- Remove ledgers of namespaces without entries, operation records and an own quota.
DELETE FROM kv_ledgers
WHERE entry_count = 0 AND record_count <= 0 AND quota_bytes IS NULL AND namespace <> ''

-- name: count_namespaces
-- Read the number of namespaces.
SELECT total FROM kv_totals WHERE name = 'namespaces'

-- name: lock_namespaces
-- Does nothing: the transaction already excludes other writers.
SELECT 1

-- name: add_namespaces
-- Correct the number of namespaces by those whose ledgers this transaction made or removed.
UPDATE kv_totals SET total = total + :added, total_limit = NULL WHERE name = 'namespaces'

-- name: correct_namespaces
-- Set the number of namespaces to that of the ledgers.
INSERT INTO kv_totals (name, total) SELECT 'namespaces', count(*) FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT (name) DO UPDATE SET total = excluded.total, total_limit = NULL

-- name: set_quota
-- Set or remove a namespace's own quota. Entries stay even if they exceed it.
UPDATE kv_ledgers SET
    quota_bytes = :quota_bytes,
    limit_bytes = max(coalesce(:quota_bytes, :limit_bytes), used_bytes),
    limit_factor = :limit_factor,
    entry_limit = max(:entry_limit * :limit_factor, entry_count),
    record_limit = max(:record_limit * :limit_factor, record_count)
WHERE namespace = :namespace

-- name: sum_entries
-- Sum up the entries and operation records of a namespace. It stops counting records at ``most_records``.
SELECT coalesce(sum(size_bytes), 0), count(*), coalesce(sum(reserve), 0) + (
    SELECT count(*) FROM (
-- include: records_of_namespace
        LIMIT :most_records
    )
)
FROM kv_entries WHERE namespace = :namespace

-- name: sum_ledgers
-- Sum up the ledgers of all namespaces.
SELECT coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0), coalesce(sum(record_count), 0)
FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, raising its limit if necessary.
UPDATE kv_ledgers SET
    used_bytes = :used_bytes,
    entry_count = :entry_count,
    record_count = :record_count,
    limit_bytes = max(limit_bytes, :used_bytes),
    entry_limit = NULL,
    record_limit = NULL
WHERE namespace = :namespace

-- name: remove_ledger
-- Remove the ledger of a namespace without entries and operation records, unless it keeps the namespace's own quota.
DELETE FROM kv_ledgers WHERE namespace = :namespace AND quota_bytes IS NULL
RETURNING 1

-- name: lock_ledgers
-- Does nothing: the transaction already excludes other writers.
SELECT 1

-- name: create_global_ledger
-- Start global accounting with what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0), coalesce(sum(entry_count), 0), NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
