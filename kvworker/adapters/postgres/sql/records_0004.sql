-- Operation records as release 0.1 makes them, until the migration to schema 0005 is finished.

-- fragment: no_record
-- Whether the operation id is unknown.
NOT EXISTS (SELECT FROM kv_operations WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s)

-- fragment: record
-- Record the operation. Returns its result, 0 instead of a stamp, and the clock.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
SELECT %(namespace)s, %(operation_id)s, %(fingerprint)s, regexp_replace(result, 'v$', 'v' || stamp),
    clock_timestamp() + make_interval(secs => %(retention_seconds)s)
FROM change
RETURNING result, 0, extract(epoch FROM clock_timestamp())::float8

-- name: stamp_by_clock
-- Do nothing: there are no stamps.
SELECT WHERE false

-- name: find_records
-- Read the record of an operation id.
-- include: records_of_operation

-- fragment: records_of_operation
-- The same for other statements.
SELECT fingerprint, result, 0, extract(epoch FROM clock_timestamp())::float8
FROM kv_operations
WHERE namespace = %(namespace)s AND operation_id = %(operation_id)s

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied or the namespace has no ledger yet. A new
-- record is charged to the ledger.
WITH recorded AS (
    INSERT INTO kv_operations AS o (namespace, operation_id, fingerprint, result, expires_at)
    SELECT %(namespace)s::text, %(operation_id)s::text, 'refused', %(result)s::text,
        clock_timestamp() + make_interval(secs => %(retention_seconds)s)
    WHERE EXISTS (SELECT FROM kv_ledgers WHERE namespace = %(namespace)s::text)
    ON CONFLICT (namespace, operation_id) DO UPDATE
    SET result = o.result || excluded.result, expires_at = excluded.expires_at
    WHERE o.fingerprint = 'refused'
    RETURNING result
-- include: charge_refusal

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
WITH withdrawn AS (
    DELETE FROM kv_operations
    WHERE namespace = %(namespace)s::text AND operation_id = %(operation_id)s AND fingerprint = 'refused'
    RETURNING result
-- include: credit_refusals

-- name: prune_batch
-- Delete operation records past their retention that expired at an instant or later. Credits their
-- ledgers. Returns how many it deleted and found, and the latest expiry.
WITH held AS (
    SELECT tableoid, ctid, extract(epoch FROM expires_at)::float8 AS place FROM kv_operations
    WHERE expires_at >= coalesce(to_timestamp(%(after)s::float8), '-infinity') AND expires_at <= (SELECT clock_timestamp())
    ORDER BY expires_at LIMIT %(batch_rows)s::bigint FOR UPDATE SKIP LOCKED
), doomed AS (
    DELETE FROM kv_operations
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM held)) AND ((tableoid, ctid) IN (SELECT tableoid, ctid FROM held)) IS TRUE
        AND expires_at <= clock_timestamp()
    RETURNING namespace
-- include: credit_pruned

-- name: prune_previous_batch
-- Do nothing: there is no previous form of records.
SELECT 0, 0, NULL::float8

-- fragment: has_changing_record
-- Whether a recorded operation changed an entry of a namespace.
EXISTS (
    SELECT FROM kv_operations
    WHERE namespace = %(namespace)s AND fingerprint <> 'refused' AND result NOT IN ('', 'false', '0 0')
)

-- fragment: records_of_namespace
-- The records of a namespace, without order.
        SELECT FROM kv_operations WHERE namespace = %(namespace)s

-- name: verify_records
-- Read the operation records that follow a name, in order. The expiry is in seconds since 1970.
SELECT namespace, operation_id, fingerprint, result, 0, extract(epoch FROM expires_at)::float8 FROM kv_operations
WHERE (namespace, operation_id) > (%(after_namespace)s::text, %(after_key)s::text)
ORDER BY namespace, operation_id LIMIT 1000

-- name: verify_previous_records
-- Do nothing: there is no previous form of records.
SELECT WHERE false

-- fragment: record_tables
-- The tables that hold records.
('kv_operations')
