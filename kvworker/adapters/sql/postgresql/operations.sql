-- One statement for each plain operation. A write is a chain of CTEs that each read from the one before, which fixes the
-- order of locks: entry, operation record, namespace ledger, global ledger (namespace '').

-- name: get_entry
-- Read a live entry, its remaining seconds and its version.
SELECT value, extract(epoch FROM expires_at - clock_timestamp())::float8, version
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
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes, version)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE NOT EXISTS (SELECT FROM replay)
    ON CONFLICT (namespace, key) DO UPDATE SET
        value = excluded.value,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
        size_bytes = excluded.size_bytes,
        previous_bytes = e.size_bytes,
        version = greatest(e.version + 1, excluded.version)
    RETURNING e.expires_at, e.size_bytes, e.previous_bytes, e.version
), operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text,
        concat(extract(epoch FROM expires_at), ' v', version),
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    FROM entry
    RETURNING fingerprint, result
), growth AS (
    SELECT size_bytes - previous_bytes AS grown_bytes, (previous_bytes = 0)::int AS grown_entries FROM entry
-- include: charge_ledgers
-- include: outcome

-- name: increment_entry
-- Add to a counter. The cast refuses what is not an integer (22P02) or leaves 64 bits (22003); the record's cast
-- of the new value does so for a first value that is out of range, but only where that value is used.
-- include: replay_guard
entry AS (
    INSERT INTO kv_entries AS e (namespace, key, value, expires_at, size_bytes, previous_bytes, version)
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s::text), 0,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE NOT EXISTS (SELECT FROM replay)
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
    RETURNING e.value, e.expires_at, e.size_bytes, e.previous_bytes, e.version
), operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text,
        concat_ws(' ', value::bigint, extract(epoch FROM expires_at), 'v' || version),
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    FROM entry
    RETURNING fingerprint, result
), growth AS (
    SELECT size_bytes - previous_bytes AS grown_bytes, (previous_bytes = 0)::int AS grown_entries FROM entry
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
), growth AS (
    SELECT -size_bytes AS grown_bytes, -1 AS grown_entries FROM entry
-- include: charge_ledgers
-- include: outcome

-- name: set_quota
-- Give a namespace a quota of its own, or none of its own. What is used stays, above it if need be.
-- include: replay_guard
operation AS (
    INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, %(fingerprint)s::text, '',
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    WHERE NOT EXISTS (SELECT FROM replay)
    RETURNING fingerprint, result
), ledger AS (
    INSERT INTO kv_ledgers AS l (namespace, used_bytes, entry_count, limit_bytes, quota_bytes)
    SELECT %(namespace)s::text, 0, 0, %(limit_bytes)s::bigint, %(quota_bytes)s::bigint FROM operation
    ON CONFLICT (namespace) DO UPDATE SET
        quota_bytes = excluded.quota_bytes,
        limit_bytes = greatest(coalesce(excluded.quota_bytes, excluded.limit_bytes), l.used_bytes)
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
