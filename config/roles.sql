-- The three roles of a store in PostgreSQL; docs/how-to/secure.md explains each. A superuser runs this file once,
-- in the store's database, before the first `kvworker migrate`:
--
--   psql --dbname kvworker --file config/roles.sql
--
-- It sets no passwords. Set one for each role with psql's \password, or configure another method in pg_hba.conf.

-- Creates and owns the tables: runs `kvworker migrate`, then config/grants.sql.
CREATE ROLE kvworker_owner LOGIN;
-- Reads and writes rows: used by workers and by commands that access the database directly.
CREATE ROLE kvworker_worker LOGIN;
-- Reads the ledgers, but no key or value: used by `kvworker namespaces`.
CREATE ROLE kvworker_monitor LOGIN;

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO kvworker_owner, kvworker_worker, kvworker_monitor;
GRANT USAGE ON SCHEMA public TO kvworker_owner, kvworker_worker, kvworker_monitor;
GRANT CREATE ON SCHEMA public TO kvworker_owner;

-- Keep statements of refused writes, and values, out of the server's log: docs/how-to/deployment.md explains it.
ALTER ROLE kvworker_worker SET log_min_error_statement = panic;
ALTER ROLE kvworker_worker SET log_parameter_max_length = 0;
ALTER ROLE kvworker_worker SET log_parameter_max_length_on_error = 0;
