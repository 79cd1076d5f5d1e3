-- Privileges of the roles in config/roles.sql. kvworker_owner runs this file after each `kvworker migrate`:
--
--   psql --username kvworker_owner --dbname kvworker --file config/grants.sql

GRANT SELECT, INSERT, UPDATE, DELETE ON kv_entries, kv_ledgers, kv_operations, kv_totals TO kvworker_worker;
GRANT SELECT ON kv_schema_version TO kvworker_worker;
GRANT SELECT ON kv_ledgers, kv_totals, kv_schema_version TO kvworker_monitor;
