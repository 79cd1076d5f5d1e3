-- The part of a write or a sweep that charges ledgers or credits them: fragments of its statement. How a ledger is split
-- into rows is in ledgers.sql.

-- fragment: settle
-- Charge the namespace's ledger and record the operation. Returns the result, the clock, whether the entry's size
-- changed, and whether other writers had locked all rows of the ledger. The division fails if there is no ledger, and
-- the whole write with it: the namespace must be founded first, so that its number is counted.
-- include: charge_namespace
            WHEN EXISTS (SELECT FROM kv_ledgers WHERE namespace = '') THEN -9223372036854775807
-- include: charge_rest
-- include: record
    , (SELECT bytes <> 0 FROM change)
    , (SELECT met FROM ledger)
    , 1 / (SELECT count(*) FROM ledger)

-- fragment: settle_globally
-- The same with the global ledger. Returns also whether other writers had locked all rows of that.
-- include: charge_namespace
-- include: charge_rest
-- include: charge_store
-- include: record
    , (SELECT bytes <> 0 FROM change)
    , (SELECT met FROM ledger)
    , (SELECT met FROM store)
    , 1 / (SELECT count(*) FROM ledger)

-- fragment: charge_namespace
-- Add the bytes, entries and operation records that a write grew by, or subtract those that it shrank by. Growth in
-- slot 0 must fit the namespace's own quota, or else the writer's limit. A write that does not grow raises the limit to
-- what is used, so that it always passes. If a statement leaves out the global ledger although there is one, it sets a
-- limit that nothing fits. Whether a row has room is judged by the row as the statement first saw it, and a locked row
-- is always used. A writer that held a share and then waited for slot 0 could deadlock with a transaction that merges
-- the shares. If the write does not fit the row after all, the check refuses it. That is also the only judgement of
-- entries and operation records: a write that does not fit its share is tried again on the merged ledger.
, room AS (
    SELECT l.slot FROM kv_ledgers l
    WHERE l.namespace = %(namespace)s AND l.slot = ANY (ARRAY(
        SELECT r.slot FROM change c, kv_ledgers r
        WHERE r.namespace = %(namespace)s
            AND (c.bytes <= 0 OR r.used_bytes + r.lent_bytes + c.bytes <= CASE
                WHEN r.slot = 0 THEN coalesce(r.quota_bytes, %(limit_bytes)s::bigint)
                WHEN nullif(r.quota_bytes, %(limit_bytes)s) IS NULL THEN r.limit_bytes
            END)
    ))
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), ledger AS (
    UPDATE kv_ledgers l SET
        used_bytes = l.used_bytes + c.bytes,
        entry_count = l.entry_count + c.entries,
        record_count = l.record_count + c.records,
        limit_bytes = CASE

-- fragment: charge_rest
-- The end of the same.
            WHEN l.slot > 0 THEN l.limit_bytes
            ELSE greatest(
                coalesce(l.quota_bytes, %(limit_bytes)s),
                CASE WHEN c.bytes <= 0 THEN l.used_bytes + l.lent_bytes + c.bytes END
            )
        END,
        entry_limit = CASE WHEN l.slot > 0 THEN l.entry_limit ELSE greatest(
            %(entry_limit)s * l.limit_factor,
            CASE WHEN c.entries <= 0 THEN l.entry_count + l.lent_entries + c.entries END
        ) END,
        record_limit = CASE WHEN l.slot > 0 THEN l.record_limit ELSE greatest(
            %(record_limit)s * l.limit_factor,
            CASE WHEN c.records <= 0 THEN l.record_count + l.lent_records + c.records END
        ) END
    FROM change c
    WHERE l.namespace = %(namespace)s AND l.slot = coalesce((SELECT slot FROM room), 0)
    RETURNING NOT EXISTS (SELECT FROM room) AS met
)

-- fragment: charge_store
-- The same for the global ledger if there is one, after the namespace's. It has no limit if the writer has no global
-- quota.
, store_room AS (
    SELECT s.slot FROM kv_ledgers s
    WHERE s.namespace = '' AND s.slot = ANY (ARRAY(
        SELECT r.slot FROM ledger, change c, kv_ledgers r
        WHERE r.namespace = ''
            AND (c.bytes <= 0 OR r.used_bytes + r.lent_bytes + c.bytes <= CASE
                WHEN r.slot = 0 THEN coalesce(%(global_limit)s::bigint, 9223372036854775807)
                WHEN r.quota_bytes = %(global_limit)s THEN r.limit_bytes
            END)
    ))
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), store AS (
    UPDATE kv_ledgers s SET
        used_bytes = s.used_bytes + c.bytes,
        entry_count = s.entry_count + c.entries,
        limit_bytes = CASE WHEN s.slot > 0 THEN s.limit_bytes WHEN %(global_limit)s > 0 THEN greatest(
            %(global_limit)s,
            CASE WHEN c.bytes <= 0 THEN s.used_bytes + s.lent_bytes + c.bytes END
        ) END
    FROM ledger, change c
    WHERE s.namespace = '' AND (c.bytes <> 0 OR c.entries <> 0)
        AND s.slot = coalesce((SELECT slot FROM store_room), 0)
    RETURNING NOT EXISTS (SELECT FROM store_room) AS met
)

-- fragment: credit_ledgers
-- Credit the bytes of deleted entries. Less is used, so the limits still hold.
), freed AS (
    SELECT namespace, sum(size_bytes)::bigint AS freed_bytes, count(*) AS freed_rows,
        sum(reserve)::bigint AS freed_records
    FROM doomed GROUP BY namespace
), locked AS (
    SELECT l.namespace FROM kv_ledgers l
    WHERE l.slot = 0 AND l.namespace IN (SELECT namespace FROM freed) ORDER BY l.namespace FOR UPDATE
), ledger AS (
    UPDATE kv_ledgers l SET
        used_bytes = l.used_bytes - f.freed_bytes,
        entry_count = l.entry_count - f.freed_rows,
        record_count = l.record_count - f.freed_records
    FROM freed f JOIN locked USING (namespace)
    WHERE l.namespace = f.namespace AND l.slot = 0
    RETURNING l.namespace
), store AS (
    UPDATE kv_ledgers g SET used_bytes = g.used_bytes - f.freed_bytes, entry_count = g.entry_count - f.freed_rows
    FROM (SELECT sum(freed_bytes)::bigint AS freed_bytes, sum(freed_rows)::bigint AS freed_rows FROM freed) f,
        (SELECT count(*) FROM ledger) after_ledgers
    WHERE g.namespace = '' AND g.slot = 0 AND f.freed_rows > 0
)
SELECT coalesce(sum(freed_rows), 0)::bigint, coalesce(sum(freed_bytes), 0)::bigint FROM freed
