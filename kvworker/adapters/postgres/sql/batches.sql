-- The steps of a planned write: its entries are locked and read, what becomes of them is decided by the caller, and
-- one statement stores it. All in one transaction in which each statement sees what was committed before it.

-- name: lock_entries
-- Lock entries in the order of their keys, and read them. One that is missing is made, empty (of 0 bytes), so that
-- it is locked as well; nobody else ever sees it, since storing fills or removes it.
INSERT INTO kv_entries AS e (namespace, key, value, size_bytes, previous_bytes, version)
SELECT %(namespace)s::text, k.key, '', 0, 0, 0 FROM unnest(%(keys)s::text[]) AS k (key)
ON CONFLICT (namespace, key) DO UPDATE SET previous_bytes = e.previous_bytes
RETURNING e.key, CASE WHEN e.key = ANY (%(read_keys)s::text[]) THEN e.value END,
    extract(epoch FROM e.expires_at)::float8, e.size_bytes, e.version, extract(epoch FROM clock_timestamp())::float8

-- name: read_entries
-- Read live entries, but no value if all of them together are too large.
SELECT key, CASE WHEN sum(size_bytes) OVER () <= %(max_bytes)s::bigint THEN value END,
    extract(epoch FROM expires_at)::float8, size_bytes, version, extract(epoch FROM clock_timestamp())::float8
FROM kv_entries
WHERE namespace = %(namespace)s AND key = ANY (%(keys)s::text[])
    AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- name: store_plan
-- Store what was decided: entries as they become (a null text leaves the value), those that go, the record, the ledgers.
WITH stored AS (
    UPDATE kv_entries e SET
        value = coalesce(n.text, e.value),
        expires_at = to_timestamp(n.expires_at),
        size_bytes = n.size_bytes,
        previous_bytes = e.size_bytes,
        version = n.version
    FROM unnest(
        %(keys)s::text[], %(texts)s::text[], %(expiries)s::text[]::float8[], %(sizes)s::text[]::bigint[],
        %(versions)s::text[]::bigint[]
    ) AS n (key, text, expires_at, size_bytes, version)
    WHERE e.namespace = %(namespace)s::text AND e.key = n.key
), removed AS (
    DELETE FROM kv_entries WHERE namespace = %(namespace)s::text AND key = ANY (%(removed_keys)s::text[])
), change AS (
    SELECT %(result)s::text AS result, %(grown_bytes)s::text::bigint AS grown_bytes,
        %(grown_entries)s::text::bigint AS grown_entries
)
-- include: settle_globally

-- name: record_operation
-- Record an operation that changes no entry.
WITH change AS (
    SELECT %(result)s::text AS result
)
-- include: record

-- name: delete_entries
-- Delete all entries of a namespace, waiting for those that somebody works on: rows, live ones, bytes.
WITH locked AS (
    SELECT key FROM kv_entries WHERE namespace = %(namespace)s ORDER BY key FOR UPDATE
-- include: delete_locked

-- name: delete_arrived
-- The same without waiting: who works on an entry that has just come may wait for one that is deleted already.
WITH locked AS (
    SELECT key FROM kv_entries WHERE namespace = %(namespace)s ORDER BY key FOR UPDATE NOWAIT
-- include: delete_locked

-- fragment: delete_locked
-- Delete the entries that are locked.
), doomed AS (
    DELETE FROM kv_entries e USING locked WHERE e.namespace = %(namespace)s AND e.key = locked.key
    RETURNING e.size_bytes, e.expires_at IS NULL OR e.expires_at > clock_timestamp() AS live
)
SELECT count(*), count(*) FILTER (WHERE live), coalesce(sum(size_bytes), 0)::bigint FROM doomed
