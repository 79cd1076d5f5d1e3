-- Batches take their locks in the order that writes take them: entries, ledgers by namespace, the global ledger.
-- The clock is read in a subquery where an index is to find the expired: a volatile function could not be its bound.

-- name: find_expired
-- Find expired entries, the longest expired first, and put them into batches by namespace: the places of each batch's
-- entries, and of all how many they are and the latest expiry. Expiries go as numbers, which no DateStyle changes.
SELECT ids[first:first + %(batch_rows)s::int - 1]::text, cardinality(ids), extract(epoch FROM until)::float8
FROM (
    SELECT array_agg(ctid ORDER BY namespace) AS ids, max(expires_at) AS until
    FROM (
        SELECT ctid, namespace, expires_at FROM kv_entries
        WHERE expires_at >= coalesce(to_timestamp(%(after)s::float8), '-infinity') AND expires_at <= (SELECT clock_timestamp())
        ORDER BY expires_at LIMIT %(found_rows)s::bigint
    ) e
) found, generate_series(1, cardinality(ids), %(batch_rows)s::int) AS first

-- name: sweep_batch
-- Delete those of a batch that are still expired and that nobody is working on, and give their bytes back. Another row
-- may have come to an entry's place. The commit is not waited for: a sweep that a crash undoes is swept again.
WITH doomed AS (
    DELETE FROM kv_entries
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM kv_entries
        WHERE ctid = ANY (%(ids)s::tid[])
            AND expires_at <= (SELECT clock_timestamp() FROM set_config('synchronous_commit', 'off', true))
        FOR UPDATE SKIP LOCKED
    )) AND expires_at <= clock_timestamp()
    RETURNING namespace, size_bytes
-- include: credit_ledgers

-- name: purge_batch
-- Delete expired entries of one namespace, or of all when it is null, waiting for those that somebody works on.
WITH doomed AS (
    DELETE FROM kv_entries
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM kv_entries
        WHERE expires_at <= (SELECT clock_timestamp())
            AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s::text)
        ORDER BY namespace, key LIMIT %(batch_rows)s::bigint FOR UPDATE
    )) AND expires_at <= clock_timestamp()
    RETURNING namespace, size_bytes
-- include: credit_ledgers

-- name: prune_batch
-- Delete operation records past their retention, from one instant on.
WITH doomed AS (
    DELETE FROM kv_operations
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM kv_operations
        WHERE expires_at >= coalesce(to_timestamp(%(after)s::float8), '-infinity') AND expires_at <= (SELECT clock_timestamp())
        ORDER BY expires_at LIMIT %(batch_rows)s::bigint FOR UPDATE SKIP LOCKED
    ))
    RETURNING expires_at
)
SELECT count(*), extract(epoch FROM max(expires_at))::float8 FROM doomed
