-- Operation records as release 0.1 makes them, until the migration to schema 0005 is finished.

-- name: record_operation
-- Record an applied operation.
INSERT INTO kv_operations (namespace, operation_id, fingerprint, result, expires_at)
VALUES (
    :namespace, :operation_id, :fingerprint, :result,
    (julianday('now') - 2440587.5) * 86400.0 + :retention_seconds
)

-- name: find_records
-- Read the record of an operation id.
SELECT fingerprint, result, 0, (julianday('now') - 2440587.5) * 86400.0
FROM kv_operations
WHERE namespace = :namespace AND operation_id = :operation_id

-- name: record_refusal
-- Add refusals to an operation's record, unless the operation was applied or the namespace has no ledger yet.
INSERT INTO kv_operations AS o (namespace, operation_id, fingerprint, result, expires_at)
SELECT :namespace, :operation_id, 'refused', :result, (julianday('now') - 2440587.5) * 86400.0 + :retention_seconds
FROM kv_ledgers WHERE namespace = :namespace
ON CONFLICT (namespace, operation_id) DO UPDATE SET result = o.result || excluded.result, expires_at = excluded.expires_at
WHERE o.fingerprint = 'refused'
RETURNING result

-- name: withdraw_refusals
-- Remove an operation's refusals, so that it can be tried again.
DELETE FROM kv_operations
WHERE namespace = :namespace AND operation_id = :operation_id AND fingerprint = 'refused'
RETURNING result

-- name: withdraw_previous_refusals
-- Do nothing: there is no previous form of records.
SELECT NULL WHERE false

-- name: prune_batch
-- Delete operation records past their retention. Returns the namespace of each.
DELETE FROM kv_operations
WHERE (namespace, operation_id) IN (
    SELECT namespace, operation_id FROM kv_operations
    WHERE expires_at <= (julianday('now') - 2440587.5) * 86400.0
    ORDER BY expires_at LIMIT :batch_rows
)
RETURNING namespace

-- name: prune_previous_batch
-- Do nothing: there is no previous form of records.
SELECT NULL WHERE false

-- fragment: has_changing_record
-- Whether a recorded operation changed an entry of a namespace.
EXISTS (
    SELECT 1 FROM kv_operations
    WHERE namespace = :namespace AND fingerprint <> 'refused' AND result NOT IN ('', 'false', '0 0')
)

-- fragment: records_of_namespace
-- The records of a namespace, without order.
        SELECT 1 FROM kv_operations WHERE namespace = :namespace

-- name: verify_records
-- Read the operation records that follow a name, in order. The expiry is in seconds since 1970.
SELECT namespace, operation_id, fingerprint, result, 0, expires_at FROM kv_operations
WHERE (namespace, operation_id) > (:after_namespace, :after_key)
ORDER BY namespace, operation_id LIMIT 1000

-- name: verify_previous_records
-- Do nothing: there is no previous form of records.
SELECT NULL WHERE false
