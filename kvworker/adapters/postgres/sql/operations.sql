-- One statement for each plain operation. A write is a chain of CTEs that each read from the one before. That fixes the
-- order of locks: entry, operation record, namespace ledger, global ledger (namespace ''). ``change`` says what the
-- write did: the operation's result (without its version, which is the stamp), and by how many bytes, entries and operation records the namespace grew. If the
-- operation id is recorded, ``change`` is empty and nothing happens. The fragments in charges.sql charge the ledgers.
--
-- Each write adds an operation record, which its ledger counts. A write that keeps the entry's size should not need the
-- ledger, so an entry holds records in reserve: the ledger has counted them in advance. A new entry has one, for its
-- deletion, which therefore always passes. A write that keeps the size, and has to charge the ledger because the
-- reserve is used up, adds 31 (``granted``) for the next ones.

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

-- fragment: charge_refusal
-- Charge a new record of refusals to its ledger.
), ledger AS (
    UPDATE kv_ledgers l SET
        record_count = l.record_count + 1, record_limit = %(record_limit)s::bigint * l.limit_factor
    FROM recorded r
    WHERE l.namespace = %(namespace)s::text AND l.slot = 0 AND r.result = %(result)s::text
)
SELECT result FROM recorded

-- fragment: credit_refusals
-- Credit withdrawn records of refusals to their ledger. Returns all refusals, or null.
), ledger AS (
    UPDATE kv_ledgers l SET record_count = l.record_count - w.records
    FROM (SELECT count(*) AS records FROM withdrawn) w
    WHERE l.namespace = %(namespace)s::text AND l.slot = 0 AND w.records > 0
)
SELECT string_agg(result, '') FROM withdrawn

-- name: set_entry
-- include: set
-- include: settle

-- name: set_entry_globally
-- include: set
-- include: settle_globally

-- fragment: set
-- Insert or replace an entry. The update reads the clock again, because it may have waited for the row.
-- include: insert_entry
        value = excluded.value,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
-- include: replace_entry
-- include: written
)

-- name: set_in_place
-- Replace an entry if it has exactly the new size and an operation record in reserve, so that no ledger changes.
-- Returns also whether the next write can do the same.
WITH change AS (
    UPDATE kv_entries e SET
        value = %(text)s::text,
        expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s),
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        reserve = e.reserve - 1
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND e.reserve > 1
        AND size_bytes = octet_length(%(text)s::text)
        AND
-- include: no_record
-- include: written_in_place

-- name: set_in_place_if_version
-- The same for a live entry of the expected version.
WITH change AS (
    UPDATE kv_entries e SET
        value = %(text)s::text,
-- include: new_expiry
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        reserve = e.reserve - 1
    WHERE
-- include: has_version
        AND e.reserve > 1 AND size_bytes = octet_length(%(text)s::text)
        AND
-- include: no_record
-- include: written_in_place

-- name: set_entry_if_version
-- include: set_if_version
-- include: settle

-- name: set_entry_if_version_globally
-- include: set_if_version
-- include: settle_globally

-- fragment: set_if_version
-- Replace a live entry of the expected version. No row means that it has another one, or that the operation is recorded.
WITH change AS (
    UPDATE kv_entries e SET
        value = %(text)s::text,
-- include: new_expiry
        size_bytes = octet_length(%(text)s::text),
        previous_bytes = e.size_bytes,
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        reserve = e.reserve
            + CASE WHEN e.size_bytes = octet_length(%(text)s::text) AND e.reserve < 32 THEN 31 ELSE 0 END,
        granted = CASE WHEN e.size_bytes = octet_length(%(text)s::text) AND e.reserve < 32 THEN 31 ELSE 0 END
    WHERE
-- include: has_version
        AND
-- include: no_record
-- include: written
)

-- name: set_entry_unless
-- include: set_unless
-- include: settle

-- name: set_entry_unless_globally
-- include: set_unless
-- include: settle_globally

-- fragment: set_unless
-- Insert or replace an entry, unless it must be absent and is live. It may keep the expiry of a live one.
-- include: insert_entry
        value = excluded.value,
-- include: new_expiry
-- include: replace_entry
    WHERE NOT %(if_absent)s OR e.expires_at <= clock_timestamp()
-- include: written
)

-- fragment: insert_entry
-- Insert an entry, unless the operation is recorded, or do what follows to the one that exists.
WITH change AS (
    INSERT INTO kv_entries AS e (
        namespace, key, value, expires_at, size_bytes, previous_bytes, version, reserve, granted
    )
    SELECT %(namespace)s::text, %(key)s::text, %(text)s::text,
        clock_timestamp() + make_interval(secs => %(ttl_seconds)s), octet_length(%(text)s), 0,
        extract(epoch FROM clock_timestamp()) * 1000000, 1, 1
    WHERE
-- include: no_record
    ON CONFLICT (namespace, key) DO UPDATE SET

-- fragment: replace_entry
-- Charge what the new value changes to the entry that it replaces.
        size_bytes = excluded.size_bytes,
        previous_bytes = e.size_bytes,
        version = greatest(e.version + 1, excluded.version),
        reserve = e.reserve
            + CASE WHEN e.size_bytes = excluded.size_bytes AND e.reserve < 32 THEN 31 ELSE 0 END,
        granted = CASE WHEN e.size_bytes = excluded.size_bytes AND e.reserve < 32 THEN 31 ELSE 0 END

-- fragment: written_in_place
-- The rest of a set that touches no ledger.
    RETURNING concat(extract(epoch FROM e.expires_at) || ' ', 'v') AS result, e.version AS stamp,
        e.reserve > 1 AS has_reserve
)
-- include: record
    , (SELECT has_reserve FROM change)

-- fragment: written
-- What a set returns to the rest of its statement.
    RETURNING concat(extract(epoch FROM e.expires_at) || ' ', 'v') AS result, e.version AS stamp,
        e.size_bytes - e.previous_bytes AS bytes, (e.previous_bytes = 0)::int AS entries,
        1 + e.granted AS records

-- fragment: new_expiry
-- The expiry of an entry that is replaced: its own if it is live and keeps it.
        expires_at = CASE
            WHEN %(keep_ttl)s AND e.expires_at > clock_timestamp() THEN e.expires_at
            ELSE clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
        END,

-- fragment: has_version
-- Whether an entry is live and has the expected version.
        e.namespace = %(namespace)s::text AND e.key = %(key)s::text AND e.version = %(expected_version)s::bigint
        AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())

-- name: increment_entry
-- include: increment
-- include: settle

-- name: increment_entry_globally
-- include: increment
-- include: settle_globally

-- fragment: increment
-- Add to a counter. The cast in the result refuses what was no integer (22P02), and those of stored and first values
-- refuse what exceeds 64 bits (22003). The server logs a text that a cast refuses: "" stands for what is no integer, and
-- numeric lies between the others and bigint, whose error then quotes nothing.
-- include: insert_entry
    (value, expires_at, size_bytes, previous_bytes, version, reserve, granted) = (
        SELECT n.value, n.expires_at, octet_length(n.value), e.size_bytes, greatest(e.version + 1, excluded.version),
            e.reserve + r, r
        FROM (
            SELECT
                CASE
                    WHEN NOT live THEN %(text)s
                    WHEN e.value !~ '[^-0-9]' THEN (e.value::numeric::bigint + %(delta)s)::text
                    ELSE ''
                END AS value,
                coalesce(
                    now + make_interval(secs => %(ttl_seconds)s), CASE WHEN live THEN e.expires_at END
                ) AS expires_at
            FROM (
                SELECT now, e.expires_at > now IS NOT FALSE AS live
                FROM (SELECT clock_timestamp() AS now OFFSET 0) t
            ) c
            OFFSET 0
        ) n, LATERAL (
            SELECT 31 * (octet_length(n.value) = e.size_bytes AND e.reserve < 32)::int
        ) g (r)
    )
    RETURNING concat_ws(' ', e.value::numeric::bigint, extract(epoch FROM e.expires_at), 'v') AS result,
        e.version AS stamp, e.size_bytes - e.previous_bytes AS bytes, (e.previous_bytes = 0)::int AS entries,
        1 + e.granted AS records
)

-- name: increment_in_place
-- The same for a live counter, if its number of digits stays. The other statement refuses what is none.
WITH change AS (
    UPDATE kv_entries e SET
        value = (e.value::bigint + %(delta)s::bigint)::text,
        expires_at = coalesce(clock_timestamp() + make_interval(secs => %(ttl_seconds)s), e.expires_at),
        version = greatest(e.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        reserve = e.reserve - 1
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND e.reserve > 1
        AND
-- include: no_record
        AND CASE WHEN (e.expires_at IS NULL OR e.expires_at > clock_timestamp()) AND e.value !~ '[^-0-9]'
            THEN octet_length((e.value::numeric::bigint + %(delta)s::bigint)::text) = e.size_bytes END
    RETURNING concat_ws(' ', e.value, extract(epoch FROM e.expires_at), 'v') AS result, e.version AS stamp,
        e.reserve > 1 AS has_reserve
)
-- include: record
    , (SELECT has_reserve FROM change)

-- name: delete_entry
-- include: delete
-- include: settle

-- name: delete_entry_globally
-- include: delete
-- include: settle_globally

-- fragment: delete
-- Remove an entry. An expired one is removed too, but counts as missing. A miss is recorded like a hit.
WITH unrecorded AS (
    SELECT WHERE
-- include: no_record
), removed AS (
    DELETE FROM kv_entries
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND EXISTS (SELECT FROM unrecorded)
    RETURNING size_bytes, reserve, expires_at IS NULL OR expires_at > clock_timestamp() AS live
), change AS (
    SELECT coalesce(r.live, false)::text AS result, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS stamp, coalesce(-r.size_bytes, 0) AS bytes,
        CASE WHEN r.live IS NULL THEN 0 ELSE -1 END AS entries, 1 - coalesce(r.reserve, 0) AS records
    FROM unrecorded LEFT JOIN removed r ON true
)

-- name: delete_entry_if_version
-- include: delete_if_version
-- include: settle

-- name: delete_entry_if_version_globally
-- include: delete_if_version
-- include: settle_globally

-- fragment: delete_if_version
-- Remove a live entry of the expected version. No row means that it has another one, or that the operation is recorded.
WITH removed AS (
    DELETE FROM kv_entries e
    WHERE
-- include: has_version
        AND
-- include: no_record
    RETURNING size_bytes, reserve
), change AS (
    SELECT 'true' AS result, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS stamp, -r.size_bytes AS bytes,
        -1 AS entries, 1 - r.reserve AS records
    FROM removed r
)

-- name: append_items
-- include: append
-- include: settle

-- name: append_items_globally
-- include: append
-- include: settle_globally

-- fragment: append
-- Append items to a list that keeps all of them, or insert them as a new list. No row means that the value is no list
-- with items, that items must be dropped, or that the operation is recorded. A stored list is canonical JSON text, so
-- items are appended as text.
-- include: insert_entry
    (value, expires_at, size_bytes, previous_bytes, version, granted) = (
        SELECT v, x, octet_length(v), e.size_bytes, greatest(e.version + 1, excluded.version), 0
        FROM (
            SELECT CASE WHEN live THEN left(e.value, -1) || ',' || substr(%(text)s, 2) ELSE excluded.value END AS v,
                coalesce(now + make_interval(secs => %(ttl_seconds)s), CASE WHEN live THEN e.expires_at END) AS x
            FROM (
                SELECT now, e.expires_at > now IS NOT FALSE AS live
                FROM (SELECT clock_timestamp() AS now OFFSET 0) t
            ) c
            OFFSET 0
        ) n
    )
    WHERE CASE WHEN e.value ~ '^\[[^]\s].*]$'
        THEN %(most)s::bigint IS NULL OR json_array_length(e.value::json) <= %(most)s END
    RETURNING json_build_array(
            json_array_length(e.value::json), 0, extract(epoch FROM e.expires_at), e.version
        )::text AS result,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS stamp,
        e.size_bytes - e.previous_bytes AS bytes, (e.previous_bytes = 0)::int AS entries, 1 + e.granted AS records
)

-- name: take_entry
-- include: take
-- include: settle

-- name: take_entry_globally
-- include: take
-- include: settle_globally

-- fragment: take
-- Remove an entry and return its value, which the record keeps. A miss is recorded like a hit. No row means that the
-- value is too large to be kept, that the entry has just changed, or that the operation is recorded.
WITH unrecorded AS (
    SELECT EXISTS (SELECT FROM kv_entries WHERE namespace = %(namespace)s::text AND key = %(key)s::text) AS exists
    WHERE
-- include: no_record
), removed AS (
    DELETE FROM kv_entries
    WHERE namespace = %(namespace)s::text AND key = %(key)s::text AND size_bytes <= %(largest)s::bigint
        AND EXISTS (SELECT FROM unrecorded)
    RETURNING value, size_bytes, reserve, expires_at IS NULL OR expires_at > clock_timestamp() AS live
), change AS (
    SELECT CASE WHEN r.live THEN concat('{"value":', r.value, '}') ELSE 'false' END AS result,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS stamp, coalesce(-r.size_bytes, 0) AS bytes,
        CASE WHEN r.live IS NULL THEN 0 ELSE -1 END AS entries, 1 - coalesce(r.reserve, 0) AS records
    FROM unrecorded u LEFT JOIN removed r ON true
    WHERE r.live IS NOT NULL OR NOT u.exists
)

-- name: delete_entries
-- Delete all entries of a namespace, waiting for locked ones. Returns the rows, how many were live, their bytes and the
-- operation records that they held in reserve.
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
    RETURNING e.size_bytes, e.reserve, e.expires_at IS NULL OR e.expires_at > clock_timestamp() AS live
)
SELECT count(*), count(*) FILTER (WHERE live), coalesce(sum(size_bytes), 0)::bigint,
    coalesce(sum(reserve), 0)::bigint
FROM doomed
