-- Operation records. A row is as small as it can be, since every write adds one:
--
--     stamp      when the operation was recorded, in microseconds since 1970; the version of what it wrote, if it has one
--                that is not ahead of the clock
--     request    a digest of the operation id and the request; null for refusals
--     kept       for how many seconds after the stamp it is kept; if negative, for how many times 4 hours
--     id         a digest of the operation id
--     namespace  the namespace
--     result     the result; the stamp follows if it ends with "v", and null means "v"
--
-- Records from before schema 0005 are in kv_operations_0004 until they expire.

-- fragment: no_record
-- Whether the operation id is unknown.
NOT EXISTS (
    SELECT FROM kv_records WHERE namespace = %(namespace)s AND id = %(id)s
    UNION ALL SELECT FROM kv_operations_0004 WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s
)

-- fragment: record
-- Record the operation. Returns its result, the stamp and the clock.
INSERT INTO kv_records (stamp, request, kept, id, namespace, result)
SELECT stamp, %(request)s::int, %(kept)s::int2, %(id)s, %(namespace)s, nullif(result, 'v') FROM change
RETURNING result, stamp, extract(epoch FROM clock_timestamp())::float8

-- name: stamp_by_clock
-- Replace a record's stamp, a version ahead of the clock, by the clock. The version goes to the result.
UPDATE kv_records SET
    stamp = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    result = concat(coalesce(result, 'v'), stamp)
WHERE namespace = %(namespace)s AND id = %(id)s AND stamp = %(stamp)s::text::bigint

-- fragment: expiry
-- When a record expires, in seconds since 1970.
(stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END

-- fragment: expiry_place
-- The same in units of 64 seconds. The index keeps each value once, with the places of all its rows.
(((stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END) >> 6)

-- name: find_records
-- Read the record of an operation id; two rows if refusals are in both tables.
-- include: records_of_operation

-- fragment: records_of_operation
-- The same for other statements.
SELECT coalesce(request::text, 'refused'), result, stamp, extract(epoch FROM clock_timestamp())::float8
FROM kv_records WHERE namespace = %(namespace)s AND id = %(id)s
UNION ALL
SELECT fingerprint, result, 0, extract(epoch FROM clock_timestamp())::float8
FROM kv_operations_0004 WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied or the namespace has no ledger yet. A new
-- record is charged to the ledger.
WITH recorded AS (
    INSERT INTO kv_records AS o (stamp, request, kept, id, namespace, result)
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL, %(kept)s::smallint,
        %(id)s::bytea, %(namespace)s::text, %(result)s::text
    WHERE EXISTS (SELECT FROM kv_ledgers WHERE namespace = %(namespace)s::text) AND NOT EXISTS (
        SELECT FROM kv_operations_0004
        WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s AND fingerprint <> 'refused'
    )
    ON CONFLICT (namespace, id) DO UPDATE
    SET result = o.result || excluded.result, stamp = excluded.stamp, kept = excluded.kept
    WHERE o.request IS NULL
    RETURNING result
-- include: charge_refusal

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
WITH new AS (
    DELETE FROM kv_records
    WHERE namespace = %(namespace)s::text AND id = %(id)s AND request IS NULL
    RETURNING result
), previous AS (
    DELETE FROM kv_operations_0004
    WHERE namespace = %(namespace)s::text AND operation_id = %(operation_id)s AND fingerprint = 'refused'
    RETURNING result
), withdrawn AS (
    SELECT result FROM previous UNION ALL SELECT result FROM new
-- include: credit_refusals

-- name: prune_batch
-- Delete operation records past their retention, beginning with a place; no clock is before 1970, whose place is 0.
-- Credits their ledgers. Returns how many it deleted and found, and the last place.
WITH now AS (
    SELECT floor(extract(epoch FROM clock_timestamp()))::bigint AS seconds
), held AS (
    SELECT tableoid, ctid,
-- include: expiry_place
        AS place
    FROM kv_records
    WHERE
-- include: expiry_place
        BETWEEN coalesce(%(after)s::float8, 0)::bigint AND ((SELECT seconds FROM now) >> 6)
        AND
-- include: expiry
        <= (SELECT seconds FROM now)
    ORDER BY
-- include: expiry_place
    LIMIT %(batch_rows)s::bigint FOR UPDATE SKIP LOCKED
), doomed AS (
    DELETE FROM kv_records
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM held)) AND ((tableoid, ctid) IN (SELECT tableoid, ctid FROM held)) IS TRUE
        AND
-- include: expiry
        <= (SELECT seconds FROM now)
    RETURNING namespace
-- include: credit_pruned

-- name: prune_previous_batch
-- The same for records from before schema 0005.
WITH held AS (
    SELECT tableoid, ctid, extract(epoch FROM expires_at)::float8 AS place FROM kv_operations_0004
    WHERE expires_at >= coalesce(to_timestamp(%(after)s::float8), '-infinity') AND expires_at <= (SELECT clock_timestamp())
    ORDER BY expires_at LIMIT %(batch_rows)s::bigint FOR UPDATE SKIP LOCKED
), doomed AS (
    DELETE FROM kv_operations_0004
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM held)) AND ((tableoid, ctid) IN (SELECT tableoid, ctid FROM held)) IS TRUE
        AND expires_at <= clock_timestamp()
    RETURNING namespace
-- include: credit_pruned

-- fragment: has_changing_record
-- Whether a recorded operation changed an entry of a namespace.
EXISTS (
    SELECT FROM kv_records
    WHERE namespace = %(namespace)s AND request IS NOT NULL AND (result NOT IN ('', 'false', '0 0')) IS NOT FALSE
) OR EXISTS (
    SELECT FROM kv_operations_0004
    WHERE namespace = %(namespace)s AND fingerprint <> 'refused' AND result NOT IN ('', 'false', '0 0')
)

-- fragment: records_of_namespace
-- The records of a namespace, without order.
        SELECT FROM kv_records WHERE namespace = %(namespace)s
        UNION ALL SELECT FROM kv_operations_0004 WHERE namespace = %(namespace)s

-- name: verify_records
-- Read the operation records that follow a name, in order. The expiry is in seconds since 1970.
SELECT namespace, id, coalesce(request::text, 'refused'), result, stamp,
-- include: expiry
FROM kv_records
WHERE (namespace, id) > (%(after_namespace)s::text, %(after_key)s::bytea)
ORDER BY namespace, id LIMIT 1000

-- name: verify_previous_records
-- The same for records from before schema 0005.
SELECT namespace, operation_id, fingerprint, result, 0, extract(epoch FROM expires_at)::float8 FROM kv_operations_0004
WHERE (namespace, operation_id) > (%(after_namespace)s::text, %(after_key)s::text)
ORDER BY namespace, operation_id LIMIT 1000

-- fragment: record_tables
-- The tables that hold records.
('kv_records'), ('kv_operations_0004')
