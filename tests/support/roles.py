"""A separate database user for one worker, which can be locked out while other workers go on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from sqlalchemy import make_url

_numbers = itertools.count(1)


class WorkerRole:
    """A role with a worker's rights on one database."""

    def __init__(self, database_url: str) -> None:
        self._owner_url = make_url(database_url)
        self.name = f"kv_worker_{os.getpid()}_{next(_numbers)}"
        self._execute("CREATE ROLE {role} LOGIN")
        tables = "kv_entries, kv_ledgers, kv_records, kv_operations_0004, kv_totals"
        self._execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {{role}}")
        self._execute("GRANT SELECT ON kv_schema_version TO {role}")

    @property
    def url(self) -> str:
        """The URL with which a worker logs in as this role."""
        return self._owner_url.set(username=self.name).render_as_string()

    def lock_out(self) -> None:
        """Refuse new connections of the role, and end those that it has."""
        self._execute("ALTER ROLE {role} CONNECTION LIMIT 0")
        self._execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {name}")

    def admit(self) -> None:
        """Let the role connect again."""
        self._execute("ALTER ROLE {role} CONNECTION LIMIT -1")

    def revoke(self, right: str) -> None:
        """Take a right on the entries away."""
        self._execute(f"REVOKE {right} ON kv_entries FROM {{role}}")

    def drop(self) -> None:
        """Remove the role with its rights."""
        self.lock_out()
        self._execute("DROP OWNED BY {role}")
        self._execute("DROP ROLE {role}")

    def _execute(self, statement: str) -> None:
        names = {"role": sql.Identifier(self.name), "name": sql.Literal(self.name)}
        url = self._owner_url.set(drivername="postgresql").render_as_string()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(**names))


@contextmanager
def worker_role(database_url: str) -> Iterator[WorkerRole]:
    """Make a role for the duration of a test."""
    role = WorkerRole(database_url)
    try:
        yield role
    finally:
        role.drop()
