"""The revisions of the schema, and the steps that lead from a database's state to the newest one.

A revision has two steps. ``expand`` makes what the new release needs and the previous one does not mind, so that
workers of both can run. ``contract`` ends the support of the previous release and raises the version, by which its
workers find out. The revisions before 0005 have one step, ``upgrade``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, TypeAlias

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from kvworker.adapters.sql.schema import PREVIOUS_VERSION, VERSION_TABLE
from kvworker.errors import SchemaError

Phase: TypeAlias = Literal["upgrade", "expand", "contract"]

_VERSION: Final = sa.table(VERSION_TABLE, sa.column("version_num", sa.String), sa.column("expanded", sa.String))


@dataclass(frozen=True, slots=True)
class State:
    """The version of a database's schema, None without one, and the revision that it is expanded to."""

    version: str | None
    expanded: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a revision, which one transaction makes."""

    revision: str
    phase: Phase
    module: ModuleType

    @property
    def title(self) -> str:
        """The step's name and what it does."""
        function = getattr(self.module, self.phase)
        return f"{self.revision}, {self.phase}: {(function.__doc__ or '').split(chr(10))[0]}"

    def run(self, context: MigrationContext) -> None:
        """Run the step's statements, and record the step. An offline context collects the statements instead."""
        with Operations.context(context):
            getattr(self.module, self.phase)()
            if self.phase == "expand":
                op.execute(_VERSION.update().values(expanded=self.revision))
            elif self.module.down_revision is None:
                _create_version_table(self.revision)
            else:
                op.execute(_VERSION.update().values(version_num=self.revision))


def read_state(connection: Connection) -> State:
    """Read a database's state.

    Raises:
        SchemaError: a newer version of the program made the schema.
    """
    tables = inspect(connection)
    if not tables.has_table(VERSION_TABLE):
        return State(None)
    has_mark = any(column["name"] == "expanded" for column in tables.get_columns(VERSION_TABLE))
    columns = [_VERSION.c.version_num, _VERSION.c.expanded if has_mark else sa.null()]
    row = connection.execute(sa.select(*columns)).first()
    state = State(*row) if row else State(None)
    if state.version is not None and state.version not in revisions():
        raise SchemaError(
            f"the database's schema is of a version that this program does not know ({state.version});"
            " use the newest version of the program"
        )
    return state


def steps_from(state: State, *, finish: bool = False, until: str | None = None) -> list[Step]:
    """Return the steps that are missing.

    Args:
        state: The database's state.
        finish: Include the steps that end the support of the previous release. An empty database needs no such care.
        until: The last revision to consider, by default the newest.
    """
    missing = [step for revision in revisions() for step in _missing_steps(revision, state, until)]
    if state.version is None:
        return missing
    old = [step for step in missing if step.revision <= PREVIOUS_VERSION]
    new = missing[len(old) :]
    expanding = [step for step in new if step.phase == "expand"]
    return old + expanding + ([step for step in new if step not in expanding] if finish else [])


@cache
def revisions() -> dict[str, ModuleType]:
    """Return the modules of all revisions, the oldest first."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    return {script.revision: script.module for script in reversed(list(scripts.walk_revisions()))}


def _missing_steps(revision: str, state: State, until: str | None) -> Iterator[Step]:
    if revision <= (state.version or "") or (until is not None and revision > until):
        return
    module = revisions()[revision]
    if hasattr(module, "upgrade"):
        yield Step(revision, "upgrade", module)
        return
    if (state.expanded or "") < revision:
        yield Step(revision, "expand", module)
    yield Step(revision, "contract", module)


def _create_version_table(revision: str) -> None:
    op.create_table(
        VERSION_TABLE,
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
    )
    op.execute(_VERSION.insert().values(version_num=revision))
