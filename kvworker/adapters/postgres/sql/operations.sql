-- One statement for each plain operation. A write is a chain of CTEs that each read from the one before. That fixes the
-- order of locks: entry, operation record, namespace ledger, global ledger (namespace ''). ``change`` says what the
-- write did to the entry: the operation's result, and by how much the entry grew. If the operation id is recorded,
-- ``change`` is empty and nothing happens. The fragments in ledgers.sql charge the ledgers.

-- name: get_entry
-- Read a live entry: its value, its remaining seconds and its version.
SELECT value, extract(epoch FROM expires_at - clock_timestamp())::float8, version
FROM kv_entries
WHERE namespace = %(namespace)s AND key = %(key)s AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- name: get_entries
-- Read several live entries, each with its position in the request. If the values exceed ``max_bytes`` together, they
-- are null.
SELECT n.place, CASE WHEN sum(e.size_bytes) OVER () <= %(max_bytes)s::bigint THEN e.value END,
    extract(epoch FROM e.expires_at - clock_timestamp())::float8, e.version
FROM unnest(%(namespaces)s::text[], %(keys)s::text[]) WITH ORDINALITY AS n (namespace, key, place)
JOIN kv_entries e ON e.namespace = n.namespace AND e.key = n.key
WHERE e.expires_at IS NULL OR e.expires_at > clock_timestamp()

-- name: find_record
-- Read the record of an operation id.
SELECT fingerprint, result, extract(epoch FROM clock_timestamp())::float8
FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied.
INSERT INTO kv_operations AS o (namespace, operation_id, fingerprint, result, expires_at)
VALUES (
    %(namespace)s, %(operation_id)s, 'refused', %(result)s,
    clock_timestamp() + make_interval(secs => %(retention_seconds)s)
)
ON CONFLICT (namespace, operation_id) DO UPDATE SET result = o.result || excluded.result, expires_at = excluded.expires_at
WHERE o.fingerprint = 'refused'
RETURNING result

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
DELETE FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s AND fingerprint = 'refused'
RETURNING result

-- name: record_operation
-- Record an operation that changes no entry.
WITH change AS (
    SELECT %(result)s::text AS result
)
-- include: record

-- fragment: record
-- Record the operation. Returns its result and the clock.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text, result,
    clock_timestamp() + make_interval(secs => %(retention_seconds)s)
FROM change
RETURNING result, extract(epoch FROM clock_timestamp())::float8

-- name: set_entry
-- include: set
-- include: settle

-- name: set_entry_globally
-- include: set
-- include: settle_globally

-- fragment: set
-- Insert or replace an entry. The update reads the clock again, because it may have waited for the row.
WITH change AS (
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes, version)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE NOT EXISTS (
        SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
    )
    ON CONFLICT (namespace, key) DO UPDATE SET
        value = excluded.value,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
        size_bytes = excluded.size_bytes,
        previous_bytes = e.size_bytes,
        version = greatest(e.version + 1, excluded.version)
    RETURNING concat(extract(epoch FROM e.expires_at), ' v', e.version) AS result,
        e.size_bytes - e.previous_bytes AS grown_bytes, (e.previous_bytes = 0)::int AS grown_entries
)

-- name: set_in_place
-- Replace an entry if it has exactly the new size, so that no ledger changes.
WITH change AS (
    UPDATE kv_entries e SET
        value = %(text)s::text,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text
        AND size_bytes = octet_length(%(text)s::text)
        AND NOT EXISTS (
            SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
        )
    RETURNING concat(extract(epoch FROM e.expires_at), ' v', e.version) AS result
)
-- include: record

-- name: increment_entry
-- include: increment
-- include: settle

-- name: increment_entry_globally
-- include: increment
-- include: settle_globally

-- fragment: increment
-- Add to a counter. The cast of the stored value refuses a value that is not an integer (22P02) or exceeds 64 bits
-- (22003). The cast in the result refuses a first value out of range, but only where that value is used.
WITH change AS (
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes, version)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE NOT EXISTS (
        SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
    )
    ON CONFLICT (namespace, key) DO UPDATE SET (value, expires_at, size_bytes, previous_bytes, version) = (
        SELECT n.value, n.expires_at, octet_length(n.value), e.size_bytes, greatest(e.version + 1, excluded.version)
        FROM (
            SELECT
                CASE WHEN c.live THEN (e.value::bigint + %(delta)s::bigint)::text ELSE %(text)s::text END AS value,
                coalesce(
                    c.now + make_interval(secs => %(ttl_seconds)s), CASE WHEN c.live THEN e.expires_at END
                ) AS expires_at
            FROM (
                SELECT t.now, e.expires_at IS NULL OR e.expires_at > t.now AS live
                FROM (SELECT clock_timestamp() AS now OFFSET 0) t
            ) c
            OFFSET 0
        ) n
    )
    RETURNING concat_ws(' ', e.value::bigint, extract(epoch FROM e.expires_at), 'v' || e.version) AS result,
        e.size_bytes - e.previous_bytes AS grown_bytes, (e.previous_bytes = 0)::int AS grown_entries
)

-- name: increment_in_place
-- Add to a live counter if its number of digits stays, so that no ledger changes.
WITH change AS (
    UPDATE kv_entries e SET
        value = (e.value::bigint + %(delta)s::bigint)::text,
        expires_at = coalesce(clock_timestamp() + make_interval(secs => %(ttl_seconds)s), e.expires_at),
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text
        AND NOT EXISTS (
            SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
        )
        AND CASE WHEN e.expires_at IS NULL OR e.expires_at > clock_timestamp()
            THEN octet_length((e.value::bigint + %(delta)s::bigint)::text) = e.size_bytes END
    RETURNING concat_ws(' ', e.value, extract(epoch FROM e.expires_at), 'v' || e.version) AS result
)
-- include: record

-- name: delete_entry
-- include: delete
-- include: settle

-- name: delete_entry_globally
-- include: delete
-- include: settle_globally

-- fragment: delete
-- Remove an entry. An expired one is removed too, but counts as missing. A miss is recorded like a hit.
WITH unrecorded AS (
    SELECT WHERE NOT EXISTS (
        SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
    )
), removed AS (
    DELETE FROM kv_entries
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND EXISTS (SELECT FROM unrecorded)
    RETURNING size_bytes, expires_at IS NULL OR expires_at > clock_timestamp() AS live
), change AS (
    SELECT coalesce(r.live, false)::text AS result, coalesce(-r.size_bytes, 0) AS grown_bytes,
        CASE WHEN r.live IS NULL THEN 0 ELSE -1 END AS grown_entries
    FROM unrecorded LEFT JOIN removed r ON true
)

-- name: delete_entries
-- Delete all entries of a namespace, waiting for locked ones. Returns the rows, how many were live, and their bytes.
WITH locked AS (
    SELECT key FROM kv_entries WHERE namespace = %(namespace)s ORDER BY key FOR UPDATE
-- include: delete_locked

-- name: delete_arrived
-- The same without waiting: the writer of an entry that arrived meanwhile may be waiting for one that is deleted
-- already.
WITH locked AS (
    SELECT key FROM kv_entries WHERE namespace = %(namespace)s ORDER BY key FOR UPDATE NOWAIT
-- include: delete_locked

-- fragment: delete_locked
-- Delete the locked entries.
), doomed AS (
    DELETE FROM kv_entries e USING locked WHERE e.namespace = %(namespace)s AND e.key = locked.key
    RETURNING e.size_bytes, e.expires_at IS NULL OR e.expires_at > clock_timestamp() AS live
)
SELECT count(*), count(*) FILTER (WHERE live), coalesce(sum(size_bytes), 0)::bigint FROM doomed
