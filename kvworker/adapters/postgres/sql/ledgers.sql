-- Everything that touches ledgers. The part of a write or a sweep that does so is a fragment of its statement.
--
-- A ledger is one row, of slot 0, as long as its writers do not meet. When they do, it is split: slot 0 lends shares of
-- the unused quota to other slots, each of which gets its share as its limit. The sum of the limits stays the same, so
-- the quota holds as long as each row keeps its own limit. The table's checks enforce that::
--
--     slot 0     used_bytes + lent_bytes <= limit_bytes, the quota; lent_bytes is the sum of the other limits
--     slot n     used_bytes <= limit_bytes; used_bytes is below 0 if more was freed than written
--
-- A share is valid under the quota that it was lent under, its quota_bytes. Null means the namespace's own quota, which
-- cannot change while there are shares. A write uses the first row that is not locked and has room; otherwise it waits
-- for slot 0. Only a transaction that has locked slot 0 creates, fills or removes shares.

-- fragment: settle
-- Charge the namespace's ledger and record the operation. Returns the result, the clock, whether the entry's size
-- changed, and whether other writers had locked all rows of the ledger.
-- include: charge_namespace
-- include: record
    , (SELECT grown_bytes <> 0 FROM change)
    , (SELECT met FROM ledger)

-- fragment: settle_globally
-- The same with the global ledger. Returns also whether other writers had locked all rows of that.
-- include: charge_namespace
-- include: charge_store
-- include: record
    , (SELECT grown_bytes <> 0 FROM change)
    , (SELECT met FROM ledger)
    , (SELECT met FROM store)

-- fragment: charge_namespace
-- Add the bytes that a write grew by, or subtract those that it shrank by. Growth in slot 0 must fit the namespace's
-- own quota, or else the writer's limit; the check applies to the proposed row as well as to the existing one. A write
-- that does not grow raises the limit to what is used, so that it always passes. If a statement leaves out the global
-- ledger although there is one, it proposes a limit that nothing fits. Whether a row has room is judged by the row as
-- the statement first saw it, and a locked row is always used. A writer that held a share and then waited for slot 0
-- could deadlock with a transaction that merges the shares. If the write does not fit the row after all, the check
-- refuses it.
, room AS (
    SELECT l.slot FROM kv_ledgers l
    WHERE l.namespace = %(namespace)s::text AND l.slot = ANY (ARRAY(
        SELECT seen.slot FROM change c, kv_ledgers seen
        WHERE seen.namespace = %(namespace)s::text
            AND (c.grown_bytes <= 0 OR seen.used_bytes + seen.lent_bytes + c.grown_bytes <= CASE
                WHEN seen.slot = 0 THEN coalesce(seen.quota_bytes, %(limit_bytes)s::bigint)
                WHEN nullif(seen.quota_bytes, %(limit_bytes)s::bigint) IS NULL THEN seen.limit_bytes
            END)
    ))
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), ledger AS (
    INSERT INTO kv_ledgers AS l (namespace, slot, used_bytes, entry_count, limit_bytes)
    SELECT %(namespace)s::text, coalesce((SELECT slot FROM room), 0), c.grown_bytes, c.grown_entries, CASE
        WHEN NOT %(globally)s::boolean AND EXISTS (SELECT FROM kv_ledgers WHERE namespace = '')
            THEN -9223372036854775807
        ELSE coalesce(
            (SELECT quota_bytes FROM kv_ledgers WHERE namespace = %(namespace)s::text AND slot = 0),
            %(limit_bytes)s::bigint
        )
    END
    FROM change c
    WHERE c.grown_bytes <> 0 OR c.grown_entries <> 0
    ON CONFLICT (namespace, slot) DO UPDATE SET
        used_bytes = l.used_bytes + excluded.used_bytes,
        entry_count = l.entry_count + excluded.entry_count,
        limit_bytes = CASE WHEN l.slot > 0 THEN l.limit_bytes ELSE greatest(
            coalesce(l.quota_bytes, %(limit_bytes)s::bigint),
            CASE WHEN excluded.used_bytes <= 0 THEN l.used_bytes + l.lent_bytes + excluded.used_bytes END
        ) END
    RETURNING l.entry_count > (SELECT grown_entries FROM change) AND NOT EXISTS (SELECT FROM room) AS met
)

-- fragment: charge_store
-- The same for the global ledger if there is one, after the namespace's. It has no limit if the writer has no global
-- quota.
, store_room AS (
    SELECT s.slot FROM kv_ledgers s
    WHERE s.namespace = '' AND s.slot = ANY (ARRAY(
        SELECT seen.slot FROM ledger, change c, kv_ledgers seen
        WHERE seen.namespace = ''
            AND (c.grown_bytes <= 0 OR seen.used_bytes + seen.lent_bytes + c.grown_bytes <= CASE
                WHEN seen.slot = 0 THEN coalesce(%(global_limit_bytes)s::bigint, 9223372036854775807)
                WHEN seen.quota_bytes = %(global_limit_bytes)s::bigint THEN seen.limit_bytes
            END)
    ))
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), store AS (
    UPDATE kv_ledgers s SET
        used_bytes = s.used_bytes + c.grown_bytes,
        entry_count = s.entry_count + c.grown_entries,
        limit_bytes = CASE WHEN s.slot > 0 THEN s.limit_bytes WHEN %(global_limit_bytes)s::bigint > 0 THEN greatest(
            %(global_limit_bytes)s::bigint,
            CASE WHEN c.grown_bytes <= 0 THEN s.used_bytes + s.lent_bytes + c.grown_bytes END
        ) END
    FROM ledger, change c
    WHERE s.namespace = '' AND s.slot = coalesce((SELECT slot FROM store_room), 0)
    RETURNING NOT EXISTS (SELECT FROM store_room) AS met
)

-- fragment: credit_ledgers
-- Credit the bytes of deleted entries. Less is used, so the limits still hold.
), freed AS (
    SELECT namespace, sum(size_bytes)::bigint AS freed_bytes, count(*) AS freed_rows FROM doomed GROUP BY namespace
), locked AS (
    SELECT l.namespace FROM kv_ledgers l
    WHERE l.slot = 0 AND l.namespace IN (SELECT namespace FROM freed) ORDER BY l.namespace FOR UPDATE
), ledger AS (
    UPDATE kv_ledgers l SET used_bytes = l.used_bytes - f.freed_bytes, entry_count = l.entry_count - f.freed_rows
    FROM freed f JOIN locked USING (namespace)
    WHERE l.namespace = f.namespace AND l.slot = 0
    RETURNING l.namespace
), store AS (
    UPDATE kv_ledgers g SET used_bytes = g.used_bytes - f.freed_bytes, entry_count = g.entry_count - f.freed_rows
    FROM (SELECT sum(freed_bytes)::bigint AS freed_bytes, sum(freed_rows)::bigint AS freed_rows FROM freed) f,
        (SELECT count(*) FROM ledger) after_ledgers
    WHERE g.namespace = '' AND g.slot = 0 AND f.freed_rows > 0
)
SELECT coalesce(sum(freed_rows), 0)::bigint, coalesce(sum(freed_bytes), 0)::bigint FROM freed

-- name: lock_ledger
-- Lock a ledger against transactions that split it or merge its shares, and read its first row.
SELECT used_bytes, entry_count, quota_bytes, lent_bytes FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot = 0 FOR UPDATE

-- name: merge_shares
-- Merge a locked ledger into one row if it is split, waiting for the writers of its shares.
WITH gone AS (
    DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND slot > 0 RETURNING used_bytes, entry_count
), total AS (
    SELECT sum(used_bytes)::bigint AS used_bytes, sum(entry_count)::bigint AS entry_count FROM gone
)
UPDATE kv_ledgers l SET
    used_bytes = l.used_bytes + t.used_bytes, entry_count = l.entry_count + t.entry_count, lent_bytes = 0
FROM total t
WHERE l.namespace = %(namespace)s AND l.slot = 0 AND t.used_bytes IS NOT NULL
RETURNING l.used_bytes, l.entry_count

-- name: lock_free_shares
-- Lock the shares of a locked ledger that no writer holds, and read them.
SELECT slot, used_bytes, limit_bytes, quota_bytes FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot > 0
ORDER BY slot FOR NO KEY UPDATE SKIP LOCKED

-- name: make_shares
-- Split a locked ledger if it is not split.
WITH made AS (
    INSERT INTO kv_ledgers (namespace, slot, used_bytes, entry_count, limit_bytes, quota_bytes)
    SELECT %(namespace)s::text, slot, 0, 0, %(share_bytes)s::bigint, %(lent_under_bytes)s::bigint
    FROM generate_series(1, %(shares)s::int) slot
    ON CONFLICT DO NOTHING
    RETURNING limit_bytes
)
UPDATE kv_ledgers SET
    lent_bytes = lent_bytes + (SELECT coalesce(sum(limit_bytes), 0)::bigint FROM made),
    limit_bytes = %(limit_bytes)s::bigint
WHERE namespace = %(namespace)s AND slot = 0

-- name: fill_shares
-- Give locked shares of a locked ledger the same room each.
WITH filled AS (
    UPDATE kv_ledgers SET limit_bytes = used_bytes + %(share_bytes)s::bigint, quota_bytes = %(lent_under_bytes)s::bigint
    WHERE namespace = %(namespace)s AND slot = ANY (%(slots)s)
)
UPDATE kv_ledgers SET lent_bytes = lent_bytes + %(lent_bytes)s::bigint, limit_bytes = %(limit_bytes)s::bigint
WHERE namespace = %(namespace)s AND slot = 0

-- name: create_ledger
-- Create an empty ledger if it does not exist, so that it can be locked.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (%(namespace)s, 0, 0, NULL) ON CONFLICT DO NOTHING

-- name: set_quota
-- Set or remove the own quota of a namespace with a locked ledger. Entries stay even if they exceed it.
UPDATE kv_ledgers SET
    quota_bytes = %(quota_bytes)s::bigint,
    limit_bytes = greatest(coalesce(%(quota_bytes)s::bigint, %(limit_bytes)s::bigint), used_bytes)
WHERE namespace = %(namespace)s AND slot = 0

-- name: sum_entries
-- Sum up the entries of a namespace.
SELECT coalesce(sum(size_bytes), 0)::bigint, count(*) FROM kv_entries WHERE namespace = %(namespace)s

-- name: sum_ledgers
-- Sum up the ledgers of all namespaces.
SELECT coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint
FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, raising its limit if necessary.
UPDATE kv_ledgers SET
    used_bytes = %(used_bytes)s,
    entry_count = %(entry_count)s,
    limit_bytes = CASE WHEN limit_bytes IS NOT NULL THEN greatest(limit_bytes, %(used_bytes)s) END
WHERE namespace = %(namespace)s AND slot = 0

-- name: remove_ledger
-- Remove the ledger of a namespace without entries, unless it keeps the namespace's own quota.
DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND slot = 0 AND quota_bytes IS NULL

-- name: lock_ledgers
-- Keep writers off all ledgers. Those that wait here see the result of this transaction.
LOCK TABLE kv_ledgers IN EXCLUSIVE MODE

-- name: create_global_ledger
-- Start global accounting with what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint, NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
