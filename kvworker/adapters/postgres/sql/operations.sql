-- One statement for each plain operation. A write is a chain of CTEs that each read from the one before, which fixes the
-- order of locks: entry, operation record, namespace ledger, global ledger (namespace ''). ``change`` is what becomes
-- of the entry: the operation's result, and by how much it grew. It is empty when the operation id is recorded, and
-- then nothing at all happens. How a statement settles what it changed is in ledgers.sql.

-- name: get_entry
-- Read a live entry, its remaining seconds and its version.
SELECT value, extract(epoch FROM expires_at - clock_timestamp())::float8, version
FROM kv_entries
WHERE namespace = %(namespace)s AND key = %(key)s AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- name: get_entries
-- The same of several, each with its place among those asked for; without values, if these are too large together.
SELECT n.place, CASE WHEN sum(e.size_bytes) OVER () <= %(max_bytes)s::bigint THEN e.value END,
    extract(epoch FROM e.expires_at - clock_timestamp())::float8, e.version
FROM unnest(%(namespaces)s::text[], %(keys)s::text[]) WITH ORDINALITY AS n (namespace, key, place)
JOIN kv_entries e ON e.namespace = n.namespace AND e.key = n.key
WHERE e.expires_at IS NULL OR e.expires_at > clock_timestamp()

-- name: recorded_operation
-- Read the record of an operation id.
SELECT fingerprint, result, extract(epoch FROM clock_timestamp())::float8
FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s

-- name: record_refusal
-- Add refusals to an operation's record, unless it is one of its having been applied.
INSERT INTO kv_operations AS o (namespace, operation_id, fingerprint, result, expires_at)
VALUES (
    %(namespace)s, %(operation_id)s, 'refused', %(result)s,
    clock_timestamp() + make_interval(secs => %(retention_seconds)s)
)
ON CONFLICT (namespace, operation_id) DO UPDATE SET result = o.result || excluded.result, expires_at = excluded.expires_at
WHERE o.fingerprint = 'refused'
RETURNING result

-- name: withdraw_refusals
-- Take an operation's refusals away, so that it can be tried again.
DELETE FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s AND fingerprint = 'refused'
RETURNING result

-- name: set_entry
-- include: set
-- include: settle

-- name: set_entry_globally
-- include: set
-- include: settle_globally

-- fragment: set
-- Insert or replace an entry. The clock is read again in the update: it may have waited for the row.
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
-- Replace an entry, if there is one of the very size: no ledger changes.
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
-- Add to a counter. The cast refuses what is not an integer (22P02) or leaves 64 bits (22003); the result's cast
-- of the new value does so for a first value that is out of range, but only where that value is used.
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
-- Add to a live counter, if its number of digits stays: no ledger changes.
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
-- Remove an entry; an expired one goes too, but counts as missing. A miss is recorded like a hit.
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
