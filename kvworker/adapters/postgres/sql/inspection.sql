-- What operators see of the store. Lists arrive as JSON.

-- name: rank_usage
-- Read a page of the namespaces' ledgers in an order, and their number. Only those whose names begin with ``prefix``,
-- hold ``search`` and match a pattern, in which * stands for any run of characters.
SELECT namespace, used_bytes, entry_count, record_count, quota_bytes, limit_factor, count(*) OVER ()
FROM (
    SELECT namespace, sum(used_bytes)::bigint AS used_bytes, sum(entry_count)::bigint AS entry_count,
        sum(record_count)::bigint AS record_count, max(quota_bytes) FILTER (WHERE slot = 0) AS quota_bytes,
        max(limit_factor) AS limit_factor
    FROM kv_ledgers
    WHERE namespace <> '' AND starts_with(namespace, %(prefix)s::text) AND strpos(namespace, %(search)s::text) > 0 AND (
        %(patterns)s::text IS NULL OR EXISTS (
            SELECT FROM json_array_elements_text(%(patterns)s::json) AS p(pattern)
            WHERE namespace LIKE
                replace(replace(replace(replace(pattern, '!', '!!'), '%%', '!%%'), '_', '!_'), '*', '%%') ESCAPE '!'
        )
    )
    GROUP BY namespace
) l
ORDER BY
    %(direction)s::int * CASE %(order_by)s::text
        WHEN 'fullness' THEN greatest(
            used_bytes / coalesce(quota_bytes, %(namespace_bytes)s::bigint)::float8,
            entry_count / (%(entry_limit)s::bigint * limit_factor)::float8,
            record_count / (%(record_limit)s::bigint * limit_factor)::float8
        )
        WHEN 'used_bytes' THEN used_bytes WHEN 'entry_count' THEN entry_count WHEN 'record_count' THEN record_count
    END,
    CASE WHEN %(order_by)s::text = 'namespace' AND %(descending)s::boolean THEN namespace END DESC,
    namespace
LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint

-- name: count_expiring
-- Count the entries that expire in each range of seconds from now, at most ``most_rows`` of each; and read how long ago
-- the first one expired.
SELECT
    (
        SELECT count(*) FROM (
            SELECT FROM kv_entries WHERE expires_at > r.after AND expires_at <= r.until LIMIT %(most_rows)s::bigint
        ) e
    ),
    extract(epoch FROM r.now - (SELECT min(expires_at) FROM kv_entries WHERE expires_at IS NOT NULL))::float8
FROM (
    SELECT n.now, number, n.now + make_interval(secs => (bounds ->> 1)::float8) AS until,
        coalesce(n.now + make_interval(secs => (bounds ->> 0)::float8), '-infinity') AS after
    FROM (SELECT clock_timestamp() AS now OFFSET 0) n,
        json_array_elements(%(ranges)s::json) WITH ORDINALITY AS given(bounds, number)
) r
ORDER BY r.number

-- name: table_sizes
-- Read the bytes of each table with its partitions and of their indexes, and about how many rows there are.
SELECT t.name, sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint,
    sum(greatest(c.reltuples, 0))::bigint
FROM json_array_elements_text(%(tables)s::json) AS t(name), pg_class c
WHERE c.relkind = 'r' AND (
    c.oid = to_regclass(t.name) OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(t.name)))
)
GROUP BY t.name ORDER BY t.name

-- name: count_connections
-- Count the connections to this database: all, active, idle in a transaction, waiting for a lock, of users whose
-- activity this one may not see; and read how many the server allows.
SELECT count(*), count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state LIKE 'idle in transaction%%'),
    count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*) FILTER (WHERE state IS NULL),
    current_setting('max_connections')::bigint
FROM pg_stat_activity WHERE datname = current_database()

-- name: table_locks
-- Read the locks on tables that keep reads or writes waiting: those that are held, and those that are awaited, with the
-- processes that they wait for. Of each table at most so many, so that none hides another.
SELECT l.name, l.mode, coalesce(l.pid, 0), coalesce(a.usename::text, ''), coalesce(a.application_name, ''),
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
    CASE WHEN l.granted THEN '{}' ELSE pg_blocking_pids(l.pid) END
FROM (
    SELECT t.name, l.mode, l.pid, l.granted,
        row_number() OVER (PARTITION BY t.name ORDER BY l.granted DESC, l.pid) AS place
    FROM json_array_elements_text(%(tables)s::json) AS t(name)
    JOIN pg_class c
        ON c.oid = to_regclass(t.name) OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(t.name))
    JOIN pg_locks l ON l.relation = c.oid AND l.locktype = 'relation'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    WHERE l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND l.pid IS DISTINCT FROM pg_backend_pid()
) l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.place <= %(limit)s::bigint
ORDER BY l.granted DESC, l.name, l.place

-- name: blocking_sessions
-- Read the sessions that have kept sessions of the store waiting for a lock on rows for longer than so many seconds, and
-- do not wait themselves. A session of the store has a lock on one of its tables.
WITH RECURSIVE ours AS (
    SELECT c.oid FROM json_array_elements_text(%(tables)s::json) AS t(name)
    JOIN pg_class c
        ON c.oid = to_regclass(t.name) OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(t.name))
), waits AS MATERIALIZED (
    SELECT w.pid, w.seconds, w.locktype, b.pid AS behind
    FROM (
        SELECT l.pid, l.locktype, extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS seconds
        FROM pg_locks l
        JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
        WHERE NOT l.granted AND l.waitstart < clock_timestamp() - make_interval(secs => %(seconds)s::float8)
        ORDER BY l.waitstart LIMIT %(most_waits)s::bigint
    ) w
    CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b(pid)
), chains AS (
    SELECT w.pid, w.behind, w.seconds FROM waits w
    WHERE w.locktype <> 'relation'
        AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = w.pid AND l.relation IN (SELECT oid FROM ours))
    UNION
    SELECT c.pid, w.behind, c.seconds FROM chains c JOIN waits w ON w.pid = c.behind
)
SELECT c.behind, coalesce(max(a.usename::text), ''), coalesce(max(a.application_name), ''),
    extract(epoch FROM clock_timestamp() - max(a.xact_start))::float8, count(DISTINCT c.pid), max(c.seconds)
FROM chains c LEFT JOIN pg_stat_activity a ON a.pid = c.behind
WHERE NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = c.behind AND NOT l.granted)
GROUP BY c.behind
ORDER BY count(DISTINCT c.pid) DESC, c.behind
LIMIT %(limit)s::bigint
