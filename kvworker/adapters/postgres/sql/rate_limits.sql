-- A rate limit in one statement. ``RateLimitStep`` in kvworker/model/rate_limit_step.py says what it does. A plan does the
-- same where this statement returns no row.

-- name: take_from_limit_in_place
-- Take from a limit, or answer when there will be enough, if its entry is live and has an operation record in reserve, so
-- that no ledger changes. ``unit``, ``capacity`` and ``cost`` are in nanoseconds, as the instant in the value is.
-- ``granted`` tells RETURNING whether the call is allowed. A refused one leaves value, version and expiry.
WITH change AS (
    UPDATE kv_entries e SET
    (value, expires_at, version, reserve, granted) = (
        SELECT
            CASE WHEN n.allowed THEN '{"$full_at":' || n.full_at + %(cost)s::bigint || '}' ELSE e.value END,
            -- A microsecond more than rounding can take away.
            CASE WHEN n.allowed
                THEN to_timestamp((n.full_at + %(cost)s::bigint) / 1000000000::float8 + 0.000001::float8)
                ELSE e.expires_at
            END,
            CASE WHEN n.allowed THEN greatest(e.version + 1, n.now / 1000) ELSE e.version END,
            e.reserve - 1, n.allowed::int
        FROM (
            SELECT f.now, f.full_at, f.full_at + %(cost)s::bigint <= f.now + %(capacity)s::bigint AS allowed
            FROM (
                SELECT c.now,
                    least(greatest(c.now, substr(e.value, 13, 19)::bigint), c.now + %(capacity)s::bigint) AS full_at
                FROM
-- include: nanoseconds
            ) f
            OFFSET 0
        ) n
    )
    WHERE e.namespace = %(namespace)s::text AND e.key = %(key)s::text AND e.reserve > 1
        AND e.expires_at > clock_timestamp() AND e.value ~ '^[{]"[$]full_at":[1-8][0-9]{18}[}]$'
        AND
-- include: no_record
    RETURNING (
        SELECT CASE WHEN e.granted = 0
            THEN concat(
                '[false,', (n.now + %(capacity)s::bigint - n.due) / %(unit)s::bigint, ',',
                n.due + %(cost)s::bigint - %(capacity)s::bigint, ',', n.due, ']'
            )
            ELSE concat(
                '[true,', (n.now + %(capacity)s::bigint - n.due) / %(unit)s::bigint, ',', n.now, ',', n.due, ']'
            )
        END
        FROM (
            SELECT c.now,
                least(greatest(c.now, substr(e.value, 13, 19)::bigint), c.now + %(capacity)s::bigint) AS due
            FROM
-- include: nanoseconds
            OFFSET 0
        ) n
    ) AS result, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS stamp, e.reserve > 1 AS has_reserve
)
-- include: record
    , (SELECT has_reserve FROM change)

-- fragment: nanoseconds
-- The clock.
                (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 AS now OFFSET 0) c
