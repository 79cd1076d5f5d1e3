-- Privileges of the roles in config/roles.sql. kvworker_owner runs this file after each `kvworker migrate`:
--
--   psql --username kvworker_owner --dbname kvworker --file config/grants.sql

GRANT SELECT, INSERT, UPDATE, DELETE ON kv_entries, kv_ledgers, kv_records, kv_totals TO kvworker_worker;
GRANT SELECT ON kv_schema_version TO kvworker_worker;
GRANT SELECT ON kv_ledgers, kv_totals, kv_schema_version TO kvworker_monitor;

-- The table of records from before schema 0005 is renamed when the migration is finished.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE tablename IN ('kv_operations', 'kv_operations_0004')
        AND schemaname = ANY (current_schemas(false))
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO kvworker_worker', name);
    END LOOP;
END $$;
