-- The rows of ledgers. The part of a write or a sweep that changes them is in charges.sql.
--
-- A ledger is one row, of slot 0, as long as its writers do not meet. When they do, it is split: slot 0 lends shares of
-- the unused quota to other slots, each of which gets its share as its limit. The sum of the limits stays the same, so
-- the quota holds as long as each row keeps its own limit. The table's checks enforce that::
--
--     slot 0     used_bytes + lent_bytes <= limit_bytes, the quota; lent_bytes is the sum of the other limits
--     slot n     used_bytes <= limit_bytes; used_bytes is below 0 if more was freed than written
--
-- The limits of entries and of operation records are lent in the same way. ``limit_factor`` is how many times these
-- limits a namespace has because its own quota is that many times the configured one.
--
-- A share is valid under the quota that it was lent under, its quota_bytes. Null means the namespace's own quota, which
-- cannot change while there are shares. A write uses the first row that is not locked and has room; otherwise it waits
-- for slot 0. Only a transaction that has locked slot 0 creates, fills or removes shares.

-- name: lock_ledger
-- Lock a ledger against transactions that split it or merge its shares, and read its first row.
SELECT used_bytes, entry_count, record_count, quota_bytes, lent_bytes, lent_entries, lent_records, limit_factor
FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot = 0 FOR UPDATE

-- name: merge_shares
-- Merge a locked ledger into one row if it is split, waiting for the writers of its shares.
WITH gone AS (
    DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND slot > 0 RETURNING used_bytes, entry_count, record_count
), total AS (
    SELECT coalesce(sum(used_bytes), 0)::bigint AS used_bytes, coalesce(sum(entry_count), 0)::bigint AS entry_count,
        coalesce(sum(record_count), 0)::bigint AS record_count, count(*) AS rows
    FROM gone
)
UPDATE kv_ledgers l SET
    used_bytes = l.used_bytes + t.used_bytes,
    entry_count = l.entry_count + t.entry_count,
    record_count = l.record_count + t.record_count,
    lent_bytes = 0,
    lent_entries = 0,
    lent_records = 0
FROM total t
WHERE l.namespace = %(namespace)s AND l.slot = 0
    AND (t.rows > 0 OR l.lent_bytes <> 0 OR l.lent_entries <> 0 OR l.lent_records <> 0)
RETURNING l.used_bytes, l.entry_count, l.record_count

-- name: lock_free_shares
-- Lock the shares of a locked ledger that no writer holds, and read them.
SELECT slot, used_bytes, limit_bytes, quota_bytes, entry_count, entry_limit, record_count, record_limit FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot > 0
ORDER BY slot FOR NO KEY UPDATE SKIP LOCKED

-- name: make_shares
-- Split a locked ledger if it is not split.
WITH made AS (
    INSERT INTO kv_ledgers (
        namespace, slot, used_bytes, entry_count, limit_bytes, quota_bytes, entry_limit, record_limit
    )
    SELECT %(namespace)s::text, slot, 0, 0, %(share_bytes)s::bigint, %(lent_under_bytes)s::bigint,
        %(share_entries)s::bigint, %(share_records)s::bigint
    FROM generate_series(1, %(shares)s::int) slot
    ON CONFLICT DO NOTHING
    RETURNING slot
)
UPDATE kv_ledgers SET
    lent_bytes = lent_bytes + %(share_bytes)s::bigint * (SELECT count(*) FROM made),
    lent_entries = lent_entries + %(share_entries)s::bigint * (SELECT count(*) FROM made),
    lent_records = lent_records + %(share_records)s::bigint * (SELECT count(*) FROM made),
    limit_bytes = %(limit_bytes)s::bigint,
    entry_limit = %(entry_limit)s::bigint,
    record_limit = %(record_limit)s::bigint
WHERE namespace = %(namespace)s AND slot = 0

-- name: fill_shares
-- Give locked shares of a locked ledger the same room each.
WITH filled AS (
    UPDATE kv_ledgers SET
        limit_bytes = used_bytes + %(share_bytes)s::bigint,
        entry_limit = entry_count + %(share_entries)s::bigint,
        record_limit = record_count + %(share_records)s::bigint,
        quota_bytes = %(lent_under_bytes)s::bigint
    WHERE namespace = %(namespace)s AND slot = ANY (%(slots)s)
)
UPDATE kv_ledgers SET
    lent_bytes = lent_bytes + %(lent_bytes)s::bigint,
    lent_entries = lent_entries + %(lent_entries)s::bigint,
    lent_records = lent_records + %(lent_records)s::bigint,
    limit_bytes = %(limit_bytes)s::bigint,
    entry_limit = %(entry_limit)s::bigint,
    record_limit = %(record_limit)s::bigint
WHERE namespace = %(namespace)s AND slot = 0

-- name: create_ledger
-- Create an empty ledger if it does not exist, so that it can be locked. Counts no namespace.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (%(namespace)s, 0, 0, NULL) ON CONFLICT DO NOTHING
RETURNING 1

-- name: found_namespace
-- Create an empty ledger if it does not exist, and count it as a namespace. All namespaces are counted in one row, so
-- the commit does not wait for the disk: that of the first entry does, and it comes later.
WITH made AS (
    INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
    SELECT %(namespace)s::text, 0, 0, NULL FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
UPDATE kv_totals SET total = total + 1, total_limit = %(namespace_limit)s::bigint
WHERE name = 'namespaces' AND EXISTS (SELECT FROM made)

-- name: remove_empty_ledgers
-- Remove ledgers of namespaces without entries, operation records and an own quota, unless a writer has locked them.
WITH removed AS (
    DELETE FROM kv_ledgers l USING (
        SELECT namespace FROM kv_ledgers
        WHERE entry_count = 0 AND record_count <= 0 AND quota_bytes IS NULL AND lent_bytes = 0
            AND namespace <> '' AND slot = 0
        ORDER BY namespace FOR UPDATE SKIP LOCKED
    ) empty
    WHERE l.namespace = empty.namespace AND l.slot = 0
    RETURNING 1
)
UPDATE kv_totals SET total = total - (SELECT count(*) FROM removed), total_limit = NULL
WHERE name = 'namespaces' AND EXISTS (SELECT FROM removed)

-- name: count_namespaces
-- Read the number of namespaces.
SELECT total FROM kv_totals WHERE name = 'namespaces'

-- name: lock_namespaces
-- Let those who found namespaces wait.
SELECT total FROM kv_totals WHERE name = 'namespaces' FOR UPDATE

-- name: add_namespaces
-- Correct the number of namespaces by those whose ledgers this transaction made or removed.
UPDATE kv_totals SET total = total + %(added)s::bigint, total_limit = NULL WHERE name = 'namespaces'

-- name: correct_namespaces
-- Set the number of namespaces to that of the ledgers. The row must be locked, so that no namespace is counted twice.
INSERT INTO kv_totals (name, total) SELECT 'namespaces', count(*) FROM kv_ledgers WHERE namespace <> '' AND slot = 0
ON CONFLICT (name) DO UPDATE SET total = excluded.total, total_limit = NULL

-- name: set_quota
-- Set or remove the own quota of a namespace with a locked ledger. Entries stay even if they exceed it.
UPDATE kv_ledgers SET
    quota_bytes = %(quota_bytes)s::bigint,
    limit_bytes = greatest(coalesce(%(quota_bytes)s::bigint, %(limit_bytes)s::bigint), used_bytes),
    limit_factor = %(limit_factor)s::bigint,
    entry_limit = greatest(%(entry_limit)s::bigint * %(limit_factor)s::bigint, entry_count),
    record_limit = greatest(%(record_limit)s::bigint * %(limit_factor)s::bigint, record_count)
WHERE namespace = %(namespace)s AND slot = 0

-- name: sum_entries
-- Sum up the entries and operation records of a namespace. It stops counting records at ``most_records``.
SELECT coalesce(sum(size_bytes), 0)::bigint, count(*), coalesce(sum(reserve), 0)::bigint + (
    SELECT count(*) FROM (
-- include: records_of_namespace
        LIMIT %(most_records)s::bigint
    ) o
)
FROM kv_entries WHERE namespace = %(namespace)s

-- name: sum_ledgers
-- Sum up the ledgers of all namespaces.
SELECT coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint,
    coalesce(sum(record_count), 0)::bigint
FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, raising its limit if necessary.
UPDATE kv_ledgers SET
    used_bytes = %(used_bytes)s,
    entry_count = %(entry_count)s,
    record_count = %(record_count)s,
    limit_bytes = CASE WHEN limit_bytes IS NOT NULL THEN greatest(limit_bytes, %(used_bytes)s) END,
    entry_limit = NULL,
    record_limit = NULL
WHERE namespace = %(namespace)s AND slot = 0

-- name: remove_ledger
-- Remove the ledger of a namespace without entries and operation records, unless it keeps the namespace's own quota.
DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND slot = 0 AND quota_bytes IS NULL
RETURNING 1

-- name: lock_ledgers
-- Keep writers off all ledgers. Those that wait here see the result of this transaction.
LOCK TABLE kv_ledgers IN EXCLUSIVE MODE

-- name: create_global_ledger
-- Start global accounting with what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint, NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
