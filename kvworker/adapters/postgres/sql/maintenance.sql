-- Batches take locks in the same order as writes: entries, ledgers by namespace, the global ledger. Where an index
-- finds expired rows, a subquery reads the clock: a volatile function cannot be the bound of an index scan.
--
-- A row is named by its table and its place in it (tableoid, ctid): if the tables are partitioned, each partition is a
-- table, and rows of several have the same place. The places alone make PostgreSQL fetch the rows directly. ``IS TRUE``
-- keeps it from making the comparison of the pairs a join, for which it may read the whole table.

-- name: find_expired
-- Find expired entries, the longest expired first, and divide them into batches by namespace. Returns the tables and
-- the places of each batch's entries, their total number and the latest expiry. Expiries are numbers, so that no
-- DateStyle changes them.
SELECT tables[first:first + %(batch_rows)s::int - 1]::text, places[first:first + %(batch_rows)s::int - 1]::text,
    cardinality(places), extract(epoch FROM until)::float8
FROM (
    SELECT array_agg(tableoid ORDER BY namespace) AS tables, array_agg(ctid ORDER BY namespace) AS places,
        max(expires_at) AS until
    FROM (
        SELECT tableoid, ctid, namespace, expires_at FROM kv_entries
        WHERE expires_at >= coalesce(to_timestamp(%(after)s::float8), '-infinity') AND expires_at <= (SELECT clock_timestamp())
        ORDER BY expires_at LIMIT %(found_rows)s::bigint
    ) e
) found, generate_series(1, cardinality(places), %(batch_rows)s::int) AS first

-- name: sweep_batch
-- Delete the entries of a batch that are still expired and not locked, and credit their bytes. The expiry is checked
-- again because another row may have taken an entry's place. The commit does not wait for the disk: if a crash undoes a
-- sweep, the next one repeats it.
WITH held AS (
    SELECT tableoid, ctid FROM kv_entries
    WHERE ctid = ANY (%(places)s::tid[])
        AND ((tableoid, ctid) IN (SELECT * FROM unnest(%(tables)s::oid[], %(places)s::tid[]))) IS TRUE
        AND expires_at <= (SELECT clock_timestamp() FROM set_config('synchronous_commit', 'off', true))
    FOR UPDATE SKIP LOCKED
-- include: delete_held_entries

-- name: purge_batch
-- Delete expired entries, waiting for locked ones; of all namespaces if ``namespace`` is null.
WITH held AS (
    SELECT tableoid, ctid FROM kv_entries
    WHERE expires_at <= (SELECT clock_timestamp())
        AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s::text)
    ORDER BY namespace, key LIMIT %(batch_rows)s::bigint FOR UPDATE
-- include: delete_held_entries

-- fragment: delete_held_entries
-- Delete the entries that the statement has locked if they are expired, and credit their bytes.
), doomed AS (
    DELETE FROM kv_entries
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM held)) AND ((tableoid, ctid) IN (SELECT tableoid, ctid FROM held)) IS TRUE
        AND expires_at <= clock_timestamp()
    RETURNING namespace, size_bytes, reserve
-- include: credit_ledgers

-- fragment: credit_pruned
-- Credit pruned records to their ledgers.
), freed AS (
    SELECT namespace, count(*) AS freed_records FROM doomed GROUP BY namespace
), locked AS (
    SELECT l.namespace FROM kv_ledgers l
    WHERE l.slot = 0 AND l.namespace IN (SELECT namespace FROM freed) ORDER BY l.namespace FOR UPDATE
), ledger AS (
    UPDATE kv_ledgers l SET record_count = l.record_count - f.freed_records
    FROM freed f JOIN locked USING (namespace)
    WHERE l.namespace = f.namespace AND l.slot = 0
)
SELECT (SELECT count(*) FROM doomed), count(*), max(place)::float8 FROM held
