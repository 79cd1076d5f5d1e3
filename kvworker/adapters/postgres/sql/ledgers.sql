-- All that touches ledgers. What a write or a sweep does to them is a fragment of its statement.
--
-- A ledger is one row, of slot 0, as long as its writers do not meet. Then it is split: other slots get shares of
-- what is left of the quota (their limit), which slot 0 has lent. The sum of what may be used never changes by
-- that, so that the quota holds as long as each row keeps to its own limit, which the table's checks enforce::
--
--     slot 0     used_bytes + lent_bytes <= limit_bytes, the quota; lent_bytes is the sum of the other limits
--     slot n     used_bytes <= limit_bytes; used_bytes is below 0 where more was freed than written
--
-- A share is good under the quota that it was lent under (its quota_bytes; null is the namespace's own, which cannot
-- change while there are shares). A write takes the first row that nobody has locked and that has room, or else
-- waits for slot 0. Only who holds slot 0 makes, fills or removes shares.

-- fragment: settle
-- Charge the namespace's ledger and record the operation. After its result and the clock come whether the entry's
-- size changed, and whether others had locked all rows of the ledger.
-- include: charge_namespace
-- include: record
    , (SELECT grown_bytes <> 0 FROM change)
    , (SELECT met FROM ledger)

-- fragment: settle_globally
-- The same with the global ledger, and the same of that.
-- include: charge_namespace
-- include: charge_store
-- include: record
    , (SELECT grown_bytes <> 0 FROM change)
    , (SELECT met FROM ledger)
    , (SELECT met FROM store)

-- fragment: record
-- Record the operation: its result, and the clock.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text, result,
    clock_timestamp() + make_interval(secs => %(retention_seconds)s)
FROM change
RETURNING result, extract(epoch FROM clock_timestamp())::float8

-- fragment: charge_namespace
-- Add what a write grew by, or take what it shrank by. Growth in slot 0 takes the namespace's own quota or else the
-- writer's limit, on the row that is proposed as well as on the one that is there; a write that does not grow lifts
-- the limit to what is used, so that it always passes. A statement that leaves the global ledger out, where there is
-- one after all, proposes a limit that nothing passes.
-- Room is judged by the row as the statement first saw it, so that a row, once it is locked, is taken: who held a
-- share and waited for slot 0 would meet who gathers them. What does not fit after all is refused by the check.
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
-- The same for the global ledger, if there is one, and after the namespace's. Without a global quota of the writer's
-- own it has no limit.
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
-- Give the bytes of deleted entries back. The limits hold all the more.
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

-- name: schema_version
-- Read what migrations were applied.
SELECT version_num FROM kv_schema_version

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: ledger_usage
-- Read one ledger; no row if there is none.
SELECT sum(used_bytes)::bigint, sum(entry_count)::bigint, max(quota_bytes) FILTER (WHERE slot = 0)
FROM kv_ledgers WHERE namespace = %(namespace)s
GROUP BY namespace

-- name: list_namespaces
-- Read a page of the ledgers of namespaces that have live entries. No name is as great as the greatest ``below``.
SELECT namespace, sum(used_bytes)::bigint, sum(entry_count)::bigint, max(quota_bytes) FILTER (WHERE slot = 0)
FROM kv_ledgers l
WHERE namespace > %(after)s AND namespace >= %(prefix)s AND namespace < %(below)s AND EXISTS (
        SELECT 1 FROM kv_entries e
        WHERE e.namespace = l.namespace AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
    )
GROUP BY namespace ORDER BY namespace LIMIT %(page_rows)s::bigint

-- name: all_usage
-- Read every ledger.
SELECT namespace, sum(used_bytes)::bigint, sum(entry_count)::bigint, max(quota_bytes) FILTER (WHERE slot = 0)
FROM kv_ledgers GROUP BY namespace ORDER BY namespace

-- name: next_namespace
-- Find the next namespace that has entries or a ledger, by the index alone.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > %(after)s
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > %(after)s
) n

-- name: wait_shortly
-- Have the rest of the transaction wait for no lock longer than a moment.
SELECT set_config('lock_timeout', '50ms', true)

-- name: lock_ledger
-- Lock a ledger against all who would split or gather it, and read its first row.
SELECT used_bytes, entry_count, quota_bytes, lent_bytes FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot = 0 FOR UPDATE

-- name: gather_shares
-- Make a locked ledger one row again, if it is not; wait for who writes into a share.
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
-- Lock those shares of a locked ledger that nobody writes into, and read them.
SELECT slot, used_bytes, limit_bytes, quota_bytes FROM kv_ledgers
WHERE namespace = %(namespace)s AND slot > 0
ORDER BY slot FOR NO KEY UPDATE SKIP LOCKED

-- name: make_shares
-- Split a locked ledger, unless it is split.
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
-- Give locked shares of a locked ledger the same room.
WITH filled AS (
    UPDATE kv_ledgers SET limit_bytes = used_bytes + %(share_bytes)s::bigint, quota_bytes = %(lent_under_bytes)s::bigint
    WHERE namespace = %(namespace)s AND slot = ANY (%(slots)s)
)
UPDATE kv_ledgers SET lent_bytes = lent_bytes + %(lent_bytes)s::bigint, limit_bytes = %(limit_bytes)s::bigint
WHERE namespace = %(namespace)s AND slot = 0

-- name: set_quota
-- Give a locked ledger a quota of the namespace's own, or none. What is used stays, above it if need be.
UPDATE kv_ledgers SET
    quota_bytes = %(quota_bytes)s::bigint,
    limit_bytes = greatest(coalesce(%(quota_bytes)s::bigint, %(limit_bytes)s::bigint), used_bytes)
WHERE namespace = %(namespace)s AND slot = 0

-- name: create_ledger
-- Make an empty ledger where there is none, so that it can be locked.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
VALUES (%(namespace)s, 0, 0, NULL) ON CONFLICT DO NOTHING

-- name: sum_entries
-- Count what a namespace's entries use.
SELECT coalesce(sum(size_bytes), 0)::bigint, count(*) FROM kv_entries WHERE namespace = %(namespace)s

-- name: sum_ledgers
-- Count what all namespaces use.
SELECT coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint
FROM kv_ledgers WHERE namespace <> ''

-- name: correct_ledger
-- Set a ledger, above its limit if need be.
UPDATE kv_ledgers SET
    used_bytes = %(used_bytes)s,
    entry_count = %(entry_count)s,
    limit_bytes = CASE WHEN limit_bytes IS NOT NULL THEN greatest(limit_bytes, %(used_bytes)s) END
WHERE namespace = %(namespace)s AND slot = 0

-- name: remove_ledger
-- Remove the ledger of a namespace without entries, unless it keeps a quota of its own.
DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND slot = 0 AND quota_bytes IS NULL

-- name: lock_ledgers
-- Keep writers off all ledgers; those that wait here see what this transaction did.
LOCK TABLE kv_ledgers IN EXCLUSIVE MODE

-- name: create_global_ledger
-- Start global accounting from what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint, NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
