-- All that touches ledgers. What a write or a sweep does to them is a fragment of its statement.

-- fragment: charge_ledgers
-- Add what a write grew by, or take what it shrank by. Growth takes the namespace's own quota or else the writer's
-- limit, which the table's checks enforce, on the row that is proposed as well as on the one that is there; a write
-- that does not grow lifts the limit to what is used, so that it always passes.
), ledger AS (
    INSERT INTO kv_ledgers AS l (namespace, used_bytes, entry_count, limit_bytes)
    SELECT %(namespace)s::text, g.grown_bytes, g.grown_entries,
        coalesce((SELECT quota_bytes FROM kv_ledgers WHERE namespace = %(namespace)s::text), %(limit_bytes)s::bigint)
    FROM growth g, operation
    WHERE g.grown_bytes <> 0 OR g.grown_entries <> 0
    ON CONFLICT (namespace) DO UPDATE SET
        used_bytes = l.used_bytes + excluded.used_bytes,
        entry_count = l.entry_count + excluded.entry_count,
        limit_bytes = CASE WHEN excluded.used_bytes > 0 THEN coalesce(l.quota_bytes, %(limit_bytes)s::bigint)
            ELSE greatest(coalesce(l.quota_bytes, %(limit_bytes)s::bigint), l.used_bytes + excluded.used_bytes) END
    RETURNING namespace
), store AS (
    UPDATE kv_ledgers s SET
        used_bytes = s.used_bytes + g.grown_bytes,
        entry_count = s.entry_count + g.grown_entries,
        limit_bytes = CASE WHEN g.grown_bytes > 0 OR %(global_limit_bytes)s::bigint IS NULL
            THEN %(global_limit_bytes)s::bigint
            ELSE greatest(%(global_limit_bytes)s::bigint, s.used_bytes + g.grown_bytes) END
    FROM growth g, ledger
    WHERE s.namespace = ''
)

-- fragment: credit_ledgers
-- Give the bytes of deleted entries back. The limits hold all the more.
), freed AS (
    SELECT namespace, sum(size_bytes)::bigint AS freed_bytes, count(*) AS freed_rows FROM doomed GROUP BY namespace
), locked AS (
    SELECT l.namespace FROM kv_ledgers l
    WHERE l.namespace IN (SELECT namespace FROM freed) ORDER BY l.namespace FOR UPDATE
), ledger AS (
    UPDATE kv_ledgers l SET used_bytes = l.used_bytes - f.freed_bytes, entry_count = l.entry_count - f.freed_rows
    FROM freed f JOIN locked USING (namespace)
    WHERE l.namespace = f.namespace
    RETURNING l.namespace
), store AS (
    UPDATE kv_ledgers g SET used_bytes = g.used_bytes - f.freed_bytes, entry_count = g.entry_count - f.freed_rows
    FROM (SELECT sum(freed_bytes)::bigint AS freed_bytes, sum(freed_rows)::bigint AS freed_rows FROM freed) f,
        (SELECT count(*) FROM ledger) after_ledgers
    WHERE g.namespace = '' AND f.freed_rows > 0
)
SELECT coalesce(sum(freed_rows), 0)::bigint, coalesce(sum(freed_bytes), 0)::bigint FROM freed

-- name: schema_version
-- Read what migrations were applied.
SELECT version_num FROM kv_schema_version

-- name: database_clock
-- Read the clock that decides expiry, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: refused_entry
-- Read what a refused write would have replaced: its size, and its value if it is live.
SELECT size_bytes, CASE WHEN expires_at IS NULL OR expires_at > clock_timestamp() THEN value END
FROM kv_entries WHERE namespace = %(namespace)s AND key = %(key)s

-- name: ledger_usage
-- Read one ledger.
SELECT used_bytes, entry_count, quota_bytes FROM kv_ledgers WHERE namespace = %(namespace)s

-- name: list_namespaces
-- Read a page of the ledgers of namespaces that have live entries. No name is as great as the greatest ``below``.
SELECT namespace, used_bytes, entry_count, quota_bytes FROM kv_ledgers l
WHERE namespace > %(after)s AND namespace >= %(prefix)s AND namespace < %(below)s AND EXISTS (
        SELECT 1 FROM kv_entries e
        WHERE e.namespace = l.namespace AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
    )
ORDER BY namespace LIMIT %(page_rows)s::bigint

-- name: all_usage
-- Read every ledger.
SELECT namespace, used_bytes, entry_count, quota_bytes FROM kv_ledgers ORDER BY namespace

-- name: next_namespace
-- Find the next namespace that has entries or a ledger, by the index alone.
SELECT min(n.namespace) FROM (
    SELECT min(namespace) AS namespace FROM kv_entries WHERE namespace > %(after)s
    UNION ALL
    SELECT min(namespace) FROM kv_ledgers WHERE namespace > %(after)s
) n

-- name: lock_ledger
-- Lock a ledger and read it. What it should be is summed in a later statement, which sees all that was committed.
SELECT used_bytes, entry_count, quota_bytes FROM kv_ledgers WHERE namespace = %(namespace)s FOR UPDATE

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
WHERE namespace = %(namespace)s

-- name: remove_ledger
-- Remove the ledger of a namespace without entries, unless it keeps a quota of its own.
DELETE FROM kv_ledgers WHERE namespace = %(namespace)s AND quota_bytes IS NULL

-- name: lock_ledgers
-- Keep writers off all ledgers; those that wait here see what this transaction did.
LOCK TABLE kv_ledgers IN EXCLUSIVE MODE

-- name: create_global_ledger
-- Start global accounting from what the namespaces use.
INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes)
SELECT '', coalesce(sum(used_bytes), 0)::bigint, coalesce(sum(entry_count), 0)::bigint, NULL
FROM kv_ledgers WHERE namespace <> ''
ON CONFLICT DO NOTHING
