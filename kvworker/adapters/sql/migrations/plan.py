"""The plan of a migration: its statements, for people to read or to run, and the locks that they take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from alembic.migration import MigrationContext
from sqlalchemy import Dialect

from kvworker.adapters.sql.migrations.revisions import Step

#: The longest wait for a lock. Other sessions that want the table meanwhile wait behind the migration.
LOCK_TIMEOUT_SECONDS: Final = 0.05
_SET_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS * 1000:.0f}ms'"

_CREATED: Final = re.compile(r"CREATE TABLE (\w+)")
_NEW_TABLE: Final = "nobody waits: the table is new"
#: The lock that a statement takes in PostgreSQL, by its beginning. The first pattern that matches decides.
_LOCKS: Final = (
    (r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY \w+ ON (\w+)", "SHARE UPDATE EXCLUSIVE", "reads and writes go on"),
    (r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+)", "SHARE", "writes wait while it reads the whole table"),
    (r"CREATE TABLE (\w+)", "ACCESS EXCLUSIVE", _NEW_TABLE),
    (r"ALTER TABLE (\w+) SET \(", "SHARE UPDATE EXCLUSIVE", "reads and writes go on"),
    (r"DO .*pg_partition_tree\('(\w+)'\).* SET \(", "SHARE UPDATE EXCLUSIVE", "reads and writes go on"),
    (r"DO .*'GRANT .* ON (\w+) TO ", "ACCESS SHARE", "reads and writes go on"),
    (r"ALTER TABLE (\w+) VALIDATE", "SHARE UPDATE EXCLUSIVE", "reads and writes go on while it reads the whole table"),
    (r"(?:ALTER|DROP) TABLE (\w+)", "ACCESS EXCLUSIVE", "reads and writes wait until the transaction ends"),
    (r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", "ROW EXCLUSIVE", "only writers of the same rows wait"),
    (r"WITH .*? UPDATE (\w+)", "ROW EXCLUSIVE", "only writers of the same rows wait"),
)


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """A statement, the table that it locks, PostgreSQL's name of the lock, and the sessions that wait for it."""

    text: str
    table: str | None = None
    lock: str | None = None
    effect: str = ""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a migration, and its statements. PostgreSQL runs each step as one transaction."""

    title: str
    statements: tuple[PlannedStatement, ...]


class _Statements(list[str]):
    """The output of an offline migration, which writes each statement individually."""

    def write(self, text: str) -> None:
        """Keep a statement without its end."""
        self.append(text.strip().removesuffix(";"))

    def flush(self) -> None:
        """Do nothing: all is kept."""


def plan_step(step: Step, dialect: Dialect) -> PlannedStep:
    """Return what a step would run in a database of this dialect, which is not asked."""
    statements = _Statements()
    step.run(
        MigrationContext.configure(
            dialect=dialect, opts={"as_sql": True, "literal_binds": True, "output_buffer": statements}
        )
    )
    if dialect.name != "postgresql":
        return PlannedStep(step.title, tuple(PlannedStatement(text) for text in statements))
    return PlannedStep(step.title, tuple(_with_locks(statements)))


def as_script(steps: Sequence[PlannedStep], dialect: Dialect) -> str:
    """Return the steps as SQL that psql or sqlite3 can run."""
    is_postgres = dialect.name == "postgresql"
    begin = ["BEGIN", _SET_LOCK_TIMEOUT] if is_postgres else ["BEGIN IMMEDIATE"]
    return "\n".join(
        f"-- {step.title}\n{_script([*begin, *(s.text for s in step.statements), 'COMMIT'])}" for step in steps
    )


def _script(statements: Sequence[str]) -> str:
    return "".join(f"{statement};\n" for statement in statements)


def _with_locks(statements: Sequence[str]) -> Iterator[PlannedStatement]:
    created: set[str] = set()
    for text in statements:
        table, lock, effect = _lock_of(" ".join(text.split()))
        yield PlannedStatement(text, table, lock, _NEW_TABLE if table in created else effect)
        created.update(_CREATED.findall(text))


def _lock_of(statement: str) -> tuple[str | None, str | None, str]:
    for pattern, lock, effect in _LOCKS:
        if match := re.match(pattern, statement):
            return match[1], lock, effect
    return None, None, ""
