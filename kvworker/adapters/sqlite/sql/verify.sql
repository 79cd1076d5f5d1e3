-- Reading every row in the order of its name, page by page in one snapshot, to check what the tables hold.

-- name: begin_snapshot
-- Begin a transaction whose statements all see the same moment. It reads only, so writers go on.
BEGIN DEFERRED

-- name: verify_entries
-- Read the entries that follow a name, in order. A page ends after the value with which ``max_bytes`` are reached. The
-- value is a blob, since damaged text may not be UTF-8.
SELECT namespace, key, value, octets, size_bytes, reserve
FROM (
    SELECT *, length(value) AS octets, sum(length(value)) OVER (ORDER BY namespace, key) AS total
    FROM (
        SELECT namespace, key, CAST(value AS BLOB) AS value, size_bytes, reserve FROM kv_entries
        WHERE (namespace, key) > (:after_namespace, :after_key)
        ORDER BY namespace, key LIMIT 1000
    )
)
WHERE total - octets < :max_bytes
ORDER BY namespace, key

-- name: verify_ledgers
-- Read the ledgers of the namespaces that follow a name, in order.
SELECT namespace,
-- include: ledger_sums
FROM kv_ledgers WHERE namespace > :after_namespace
GROUP BY namespace ORDER BY namespace LIMIT 1000

-- name: verify_global_ledger
-- Read the global ledger; null sums if there is none.
SELECT '',
-- include: ledger_sums
FROM kv_ledgers WHERE namespace = ''

-- fragment: ledger_sums
-- The sums of a ledger's rows, its number of first rows, and its limits. Here a ledger is one row, which lends nothing.
    sum(used_bytes), sum(entry_count), sum(record_count), count(*) FILTER (WHERE slot = 0), 0, 0, 0,
    max(limit_bytes) FILTER (WHERE slot = 0),
    max(entry_limit) FILTER (WHERE slot = 0),
    max(record_limit) FILTER (WHERE slot = 0)
