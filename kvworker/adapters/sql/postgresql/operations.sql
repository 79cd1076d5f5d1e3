-- One statement per operation. A write is a chain of CTEs that each read from the one before, which fixes the
-- order of locks: entry, operation record, namespace ledger, global ledger (namespace '').

-- name: get_entry
-- Read a live entry and its remaining seconds.
SELECT value, extract(epoch FROM expires_at - clock_timestamp())::float8
FROM kv_entries
WHERE namespace = %(namespace)s AND key = %(key)s AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- name: recorded_operation
-- Read the record of an operation id.
SELECT fingerprint, result, extract(epoch FROM clock_timestamp())::float8
FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s

-- name: set_entry
-- Insert or replace an entry. The clock is read again in the update: it may have waited for the row.
-- include: replay_guard
entry AS (
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0
    WHERE NOT EXISTS (SELECT FROM replay)
    ON CONFLICT (namespace, key) DO UPDATE SET
        value = excluded.value,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
        size_bytes = excluded.size_bytes,
        previous_bytes = e.size_bytes
    RETURNING e.expires_at, e.size_bytes, e.previous_bytes
), operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text,
        coalesce(extract(epoch FROM expires_at)::text, ''),
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    FROM entry
    RETURNING fingerprint, result
-- include: charge_ledgers
-- include: outcome

-- name: increment_entry
-- Add to a counter. The cast refuses what is not an integer (22P02) or leaves 64 bits (22003); the record's cast
-- of the new value does so for a first value that is out of range, but only where that value is used.
-- include: replay_guard
entry AS (
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0
    WHERE NOT EXISTS (SELECT FROM replay)
    ON CONFLICT (namespace, key) DO UPDATE SET (value, expires_at, size_bytes, previous_bytes) = (
        SELECT n.value, n.expires_at, octet_length(n.value), e.size_bytes
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
    RETURNING e.value, e.expires_at, e.size_bytes, e.previous_bytes
), operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text,
        concat_ws(' ', value::bigint, extract(epoch FROM expires_at)),
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    FROM entry
    RETURNING fingerprint, result
-- include: charge_ledgers
-- include: outcome

-- name: delete_entry
-- Remove an entry; an expired one goes too, but counts as missing. A miss is recorded like a hit.
-- include: replay_guard
entry AS (
    DELETE FROM kv_entries
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND NOT EXISTS (SELECT FROM replay)
    RETURNING size_bytes, expires_at IS NULL OR expires_at > clock_timestamp() AS live
), operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text,
        coalesce((SELECT live FROM entry), false)::text,
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    WHERE NOT EXISTS (SELECT FROM replay)
    RETURNING fingerprint, result
), ledger AS (
    UPDATE kv_ledgers l SET
        used_bytes = l.used_bytes - e.size_bytes,
        entry_count = l.entry_count - 1,
        limit_bytes = greatest(%(limit_bytes)s::bigint, l.used_bytes - e.size_bytes)
    FROM entry e, operation
    WHERE l.namespace = %(namespace)s::text
    RETURNING l.namespace
), store AS (
    UPDATE kv_ledgers g SET
        used_bytes = g.used_bytes - e.size_bytes,
        entry_count = g.entry_count - 1,
        limit_bytes = CASE WHEN %(global_limit_bytes)s::bigint IS NOT NULL
            THEN greatest(%(global_limit_bytes)s::bigint, g.used_bytes - e.size_bytes) END
    FROM entry e, ledger
    WHERE g.namespace = ''
)
-- include: outcome

-- fragment: replay_guard
-- Find the record of the operation id: with it, the rest of the chain does nothing.
WITH replay AS (
    SELECT fingerprint, result FROM kv_operations
    WHERE namespace = %(namespace)s::text AND operation_id = %(operation_id)s::text
),

-- fragment: outcome
-- The record that was found, or else the one just made.
SELECT fingerprint, result, extract(epoch FROM clock_timestamp())::float8, true FROM replay
UNION ALL
SELECT fingerprint, result, extract(epoch FROM clock_timestamp())::float8, false FROM operation
