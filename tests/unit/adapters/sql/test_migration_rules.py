"""No migration since release 0.1 may block a table in use, or break the previous release."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from kvworker.adapters.sql.migrations.plan import plan_step
from kvworker.adapters.sql.migrations.revisions import State, Step, revisions, steps_from
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION
from tests.support.migration_rules import find_dangers

RELEASED = "0004"
POSTGRES, SQLITE = (make_url(f"{name}://").get_dialect()() for name in ("postgresql+psycopg", "sqlite"))
STEPS = [step for step in steps_from(State(None)) if step.revision > RELEASED]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.revision} {step.phase}")
def test_no_step_blocks_tables_in_use(step: Step) -> None:
    statements = [statement.text for statement in plan_step(step, POSTGRES).statements]
    assert list(find_dangers(statements, expanding=step.phase == "expand")) == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.revision} {step.phase}")
def test_the_plan_knows_the_lock_of_every_statement(step: Step) -> None:
    planned = plan_step(step, POSTGRES)
    assert all(statement.lock and statement.table for statement in planned.statements)
    assert plan_step(step, SQLITE).statements


def test_every_revision_since_the_release_has_both_steps() -> None:
    assert {revision for revision in revisions() if revision > RELEASED} == {step.revision for step in STEPS}
    assert [step.phase for step in STEPS] == ["expand", "contract"] * (len(STEPS) // 2)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX i ON kv_entries (key)",
        "CREATE UNIQUE INDEX i ON kv_entries (key)",
        "ALTER TABLE kv_entries ADD CONSTRAINT c CHECK (size_bytes > 0)",
        "ALTER TABLE kv_entries ADD COLUMN c BIGINT NOT NULL",
        "ALTER TABLE kv_entries ADD COLUMN c UUID DEFAULT gen_random_uuid() NOT NULL",
        "ALTER TABLE kv_entries ALTER COLUMN value TYPE BYTEA",
        "ALTER TABLE kv_entries ALTER COLUMN expires_at SET NOT NULL",
        "ALTER TABLE kv_entries SET UNLOGGED",
        "LOCK TABLE kv_entries",
        "VACUUM FULL kv_entries",
        "UPDATE kv_entries SET version = 1",
        "DELETE FROM kv_operations WHERE namespace = ''",
        "ALTER TABLE kv_entries DROP COLUMN reserve",
        "ALTER TABLE kv_operations RENAME TO other",
        "DROP TABLE kv_operations",
    ],
)
def test_a_dangerous_statement_is_found(statement: str) -> None:
    assert len(list(find_dangers([statement], expanding=True))) == 1


@pytest.mark.parametrize(
    "statements",
    [
        [
            "CREATE TABLE kv_new (a INT)",
            "CREATE INDEX i ON kv_new (a)",
            "ALTER TABLE kv_new ALTER COLUMN a SET NOT NULL",
        ],
        ["CREATE INDEX CONCURRENTLY i ON kv_entries (key)"],
        ["ALTER TABLE kv_entries ADD CONSTRAINT c CHECK (size_bytes > 0) NOT VALID"],
        ["ALTER TABLE kv_entries VALIDATE CONSTRAINT c"],
        ["ALTER TABLE kv_entries ADD COLUMN c BIGINT"],
        ["ALTER TABLE kv_entries ADD COLUMN c BIGINT DEFAULT 1 NOT NULL"],
        ["ALTER TABLE kv_entries SET (fillfactor = 90)"],
        ["UPDATE kv_entries SET c = 1 WHERE key IN (SELECT key FROM kv_entries WHERE c IS NULL LIMIT 1000)"],
        ["UPDATE kv_schema_version SET version_num = '0005'"],
    ],
)
def test_a_safe_step_is_allowed(statements: list[str]) -> None:
    assert list(find_dangers(statements, expanding=True)) == []


def test_a_contracting_step_may_remove_what_no_release_uses_any_more() -> None:
    assert list(find_dangers(["DROP TABLE kv_operations"], expanding=False)) == []


@pytest.mark.parametrize(
    ("state", "finish", "phases"),
    [
        (State(None), False, ["upgrade"] * 4 + ["expand", "contract"]),
        (State("0003"), False, ["upgrade", "expand"]),
        (State(PREVIOUS_VERSION), False, ["expand"]),
        (State(PREVIOUS_VERSION, SCHEMA_VERSION), False, []),
        (State(PREVIOUS_VERSION), True, ["expand", "contract"]),
        (State(PREVIOUS_VERSION, SCHEMA_VERSION), True, ["contract"]),
        (State(SCHEMA_VERSION, SCHEMA_VERSION), True, []),
    ],
)
def test_the_steps_that_are_missing(state: State, phases: list[str], *, finish: bool) -> None:
    assert [step.phase for step in steps_from(state, finish=finish)] == phases
