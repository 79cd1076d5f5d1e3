-- Planned writes: their entries are locked and read, Python decides what happens to them, and one statement stores the
-- result. All of that is one transaction in which each statement sees everything committed before it.

-- name: lock_entries
-- Lock entries in the order of their keys, and read them. A missing one is created empty (0 bytes), so that it is
-- locked as well. No other transaction ever sees it, since storing the plan fills or removes it. A process that freezes
-- keeps the locks for no more than ``idle_milliseconds``.
INSERT INTO kv_entries AS e (namespace, key, value, size_bytes, previous_bytes, version, reserve)
SELECT %(namespace)s::text, k.key, '', 0, 0, 0, 0
FROM unnest(%(keys)s::text[]) AS k (key),
    set_config('idle_in_transaction_session_timeout', %(idle_milliseconds)s::text, true)
ON CONFLICT (namespace, key) DO UPDATE SET previous_bytes = e.previous_bytes
RETURNING e.key, CASE WHEN e.key = ANY (%(read_keys)s::text[]) THEN e.value END,
    extract(epoch FROM e.expires_at)::float8, e.size_bytes, e.version, e.reserve,
    extract(epoch FROM clock_timestamp())::float8

-- name: read_entries
-- Read live entries. If the values exceed ``max_bytes`` together, they are null.
SELECT key, CASE WHEN sum(size_bytes) OVER () <= %(max_bytes)s::bigint THEN value END,
    extract(epoch FROM expires_at)::float8, size_bytes, version, extract(epoch FROM clock_timestamp())::float8
FROM kv_entries
WHERE namespace = %(namespace)s AND key = ANY (%(keys)s::text[])
    AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- name: explain_refusal
-- Read the version of a live entry and the record of an operation id, as of one moment.
SELECT 'live', NULL, version, extract(epoch FROM clock_timestamp())::float8 FROM kv_entries
WHERE namespace = %(namespace)s AND key = %(key)s AND (expires_at IS NULL OR expires_at > clock_timestamp())
UNION ALL
-- include: records_of_operation

-- name: store_plan
-- Store a plan: the changed entries, the removed ones, the record and the ledgers. An empty text keeps the value, and an
-- empty expiry is none. They are no nulls, which an array cannot hold in a session with ``array_nulls = off``.
WITH stored AS (
    UPDATE kv_entries e SET
        value = coalesce(nullif(n.text, ''), e.value),
        expires_at = to_timestamp(nullif(n.expires_at, '')::float8),
        size_bytes = n.size_bytes,
        previous_bytes = e.size_bytes,
        version = n.version,
        reserve = n.reserve
    FROM unnest(
        %(keys)s::text[], %(texts)s::text[], %(expiries)s::text[], %(sizes)s::text[]::bigint[],
        %(versions)s::text[]::bigint[], %(reserves)s::text[]::smallint[]
    ) AS n (key, text, expires_at, size_bytes, version, reserve)
    WHERE e.namespace = %(namespace)s::text AND e.key = n.key
), removed AS (
    DELETE FROM kv_entries WHERE namespace = %(namespace)s::text AND key = ANY (%(removed_keys)s::text[])
), change AS (
    SELECT %(compact_result)s::text AS result,
        coalesce(%(stamp)s::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS stamp,
        %(grown_bytes)s::text::bigint AS bytes,
        %(grown_entries)s::text::bigint AS entries, %(grown_records)s::text::bigint AS records
)
-- include: settle_globally
