-- The three roles of a store in PostgreSQL; docs/how-to/secure.md tells what each is for. A superuser runs it once, in the
-- store's database, before the first `kvworker migrate`:
--
--   psql --dbname kvworker --file config/roles.sql
--
-- It sets no password: give each role its own with psql's \password, or let pg_hba.conf admit it in another way.

-- Makes and owns the tables: `kvworker migrate`, and config/grants.sql after it.
CREATE ROLE kvworker_owner LOGIN;
-- Reads and writes rows: workers, and the commands that use the database themselves.
CREATE ROLE kvworker_worker LOGIN;
-- Reads what is used of the quotas, but no key and no value: `kvworker namespaces`.
CREATE ROLE kvworker_monitor LOGIN;

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO kvworker_owner, kvworker_worker, kvworker_monitor;
GRANT USAGE ON SCHEMA public TO kvworker_owner, kvworker_worker, kvworker_monitor;
GRANT CREATE ON SCHEMA public TO kvworker_owner;
