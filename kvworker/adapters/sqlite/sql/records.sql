-- Operation records, with the columns that PostgreSQL's records.sql describes. Records from before schema 0005 are in
-- kv_operations_0004 until they expire.

-- name: record_operation
-- Record an applied operation.
INSERT INTO kv_records (stamp, request, kept, id, namespace, result)
VALUES (
    coalesce(:stamp, CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)),
    :request, :kept, :id, :namespace, nullif(:compact_result, 'v')
)

-- fragment: expiry
-- When a record expires, in seconds since 1970.
(stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END

-- fragment: expiry_place
-- The same in units of 64 seconds.
(((stamp + 999999) / 1000000 + CASE WHEN kept < 0 THEN kept * -14400 ELSE kept END) >> 6)

-- name: find_records
-- Read the record of an operation id; two rows if refusals are in both tables.
SELECT coalesce(CAST(request AS TEXT), 'refused'), result, stamp, (julianday('now') - 2440587.5) * 86400.0
FROM kv_records WHERE namespace = :namespace AND id = :id
UNION ALL
SELECT fingerprint, result, 0, (julianday('now') - 2440587.5) * 86400.0
FROM kv_operations_0004 WHERE namespace = :namespace AND operation_id = :operation_id

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied or the namespace has no ledger yet.
INSERT INTO kv_records AS o (stamp, request, kept, id, namespace, result)
SELECT CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER), NULL, :kept, :id,
    :namespace, :result
FROM kv_ledgers WHERE namespace = :namespace AND NOT EXISTS (
    SELECT 1 FROM kv_operations_0004
    WHERE namespace = :namespace AND operation_id = :operation_id AND fingerprint <> 'refused'
)
ON CONFLICT (namespace, id) DO UPDATE
SET result = o.result || excluded.result, stamp = excluded.stamp, kept = excluded.kept
WHERE o.request IS NULL
RETURNING result

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
DELETE FROM kv_records
WHERE namespace = :namespace AND id = :id AND request IS NULL
RETURNING result

-- name: withdraw_previous_refusals
-- The same for records from before schema 0005.
DELETE FROM kv_operations_0004
WHERE namespace = :namespace AND operation_id = :operation_id AND fingerprint = 'refused'
RETURNING result

-- name: prune_batch
-- Delete operation records past their retention. Returns the namespace of each.
DELETE FROM kv_records
WHERE (namespace, id) IN (
    SELECT namespace, id FROM kv_records
    WHERE
-- include: expiry_place
    <= CAST((julianday('now') - 2440587.5) * 86400.0 AS INTEGER) >> 6 AND
-- include: expiry
    <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY
-- include: expiry_place
    LIMIT :batch_rows
)
RETURNING namespace

-- name: prune_previous_batch
-- The same for records from before schema 0005.
DELETE FROM kv_operations_0004
WHERE (namespace, operation_id) IN (
    SELECT namespace, operation_id FROM kv_operations_0004
    WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY expires_at LIMIT :batch_rows
)
RETURNING namespace

-- fragment: has_changing_record
-- Whether a recorded operation changed an entry of a namespace.
EXISTS (
    SELECT 1 FROM kv_records
    WHERE namespace = :namespace AND request IS NOT NULL AND coalesce(result, 'v') NOT IN ('', 'false', '0 0')
) OR EXISTS (
    SELECT 1 FROM kv_operations_0004
    WHERE namespace = :namespace AND fingerprint <> 'refused' AND result NOT IN ('', 'false', '0 0')
)

-- fragment: records_of_namespace
-- The records of a namespace, without order.
        SELECT 1 FROM kv_records WHERE namespace = :namespace
        UNION ALL SELECT 1 FROM kv_operations_0004 WHERE namespace = :namespace

-- name: verify_records
-- Read the operation records that follow a name, in order. The expiry is in seconds since 1970.
SELECT namespace, id, coalesce(CAST(request AS TEXT), 'refused'), result, stamp,
-- include: expiry
FROM kv_records
WHERE (namespace, id) > (:after_namespace, CAST(:after_key AS BLOB))
ORDER BY namespace, id LIMIT 1000

-- name: verify_previous_records
-- The same for records from before schema 0005.
SELECT namespace, operation_id, fingerprint, result, 0, expires_at FROM kv_operations_0004
WHERE (namespace, operation_id) > (:after_namespace, :after_key)
ORDER BY namespace, operation_id LIMIT 1000
