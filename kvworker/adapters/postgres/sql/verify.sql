-- Reading every row in the order of its name, page by page in one snapshot, to check what the tables hold.
-- The limits are not parameters: a planner that does not know them would sort the whole table for each page.

-- name: begin_snapshot
-- Begin a transaction that changes nothing and whose statements all see the same moment.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: verify_entries
-- Read the entries that follow a name, in order. A page ends after the value with which ``max_bytes`` are reached.
SELECT namespace, key, value, octets, size_bytes, reserve
FROM (
    SELECT e.*, octet_length(value) AS octets, sum(octet_length(value)) OVER (ORDER BY namespace, key) AS total
    FROM (
        SELECT namespace, key, value, size_bytes, reserve FROM kv_entries
        WHERE (namespace, key) > (%(after_namespace)s::text, %(after_key)s::text)
        ORDER BY namespace, key LIMIT 1000
    ) e
) page
WHERE total - octets < %(max_bytes)s::bigint
ORDER BY namespace, key

-- name: verify_ledgers
-- Read the ledgers of the namespaces that follow a name, in order.
SELECT namespace,
-- include: ledger_sums
FROM kv_ledgers WHERE namespace > %(after_namespace)s::text
GROUP BY namespace ORDER BY namespace LIMIT 1000

-- name: verify_global_ledger
-- Read the global ledger; null sums if there is none.
SELECT '',
-- include: ledger_sums
FROM kv_ledgers WHERE namespace = ''

-- fragment: ledger_sums
-- The sums of a ledger's rows, its number of first rows, what the first row lent beyond the limits of the others, and
-- the limits of the whole.
    sum(used_bytes)::bigint, sum(entry_count)::bigint, sum(record_count)::bigint,
    count(*) FILTER (WHERE slot = 0),
    (sum(lent_bytes) - coalesce(sum(limit_bytes) FILTER (WHERE slot > 0), 0))::bigint,
    (sum(lent_entries) - coalesce(sum(entry_limit) FILTER (WHERE slot > 0), 0))::bigint,
    (sum(lent_records) - coalesce(sum(record_limit) FILTER (WHERE slot > 0), 0))::bigint,
    max(limit_bytes) FILTER (WHERE slot = 0),
    max(entry_limit) FILTER (WHERE slot = 0),
    max(record_limit) FILTER (WHERE slot = 0)
