"""The table of scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos import faults
from tests.chaos.history import Call, Outcome
from tests.chaos.load import Pace
from tests.chaos.scene import Scenario, Scene
from tests.chaos.stand import Needs


def nobody_notices(_scene: Scene, calls: Sequence[Call]) -> Iterator[str]:
    """No call fails but by the refusals that the load provokes."""
    for call in calls:
        if call.outcome in {Outcome.UNKNOWN, Outcome.EXPIRED, Outcome.UNSENT}:
            yield f"a caller noticed: {call.outcome} by {call.error} ({call.detail}): {call.name}"


def some_ran_twice(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """A stale execution met the redelivered one."""
    if not any(times > 1 for times in scene.stand.executions().values()):
        yield "no operation was executed twice, so nothing was put to the test"


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("worker-killed", "a worker's main process is killed and started again", faults.kill_worker),
    Scenario("child-killed", "a process of a worker's pool is killed", faults.kill_child),
    Scenario(
        "rolling-restart",
        "workers are stopped by SIGTERM and started again, in turn; nobody notices",
        faults.roll_worker,
        expects=(nobody_notices,),
        pace=Pace((8.0, 10.0)),
    ),
    Scenario(
        "worker-frozen",
        "a worker is frozen amid its operations, past the visibility timeout, and goes on",
        faults.freeze_worker,
        expects=(some_ran_twice,),
    ),
    Scenario("valkey-killed", "Valkey is killed and started again on its data", faults.kill_valkey),
    Scenario("valkey-emptied", "Valkey is killed and started again without its data", faults.kill_valkey_and_data),
    Scenario("connections-cut", "every connection to Valkey is cut", faults.cut_connections),
    Scenario("postgres-killed", "PostgreSQL is killed and started again on its data", faults.kill_postgres),
    Scenario(
        "backends-terminated",
        "PostgreSQL closes the workers' connections",
        faults.terminate_backends,
        pause_seconds=(0.05, 0.2),
    ),
    Scenario("connections-exhausted", "other clients hold all of PostgreSQL's connections", faults.exhaust_connections),
    Scenario("read-only", "PostgreSQL refuses every write for a while", faults.be_read_only),
    Scenario(
        "sqlite-locked",
        "another process holds SQLite's lock",
        faults.lock_sqlite,
        needs=Needs(database="sqlite"),
    ),
    Scenario(
        "disk-full",
        "the file system under PostgreSQL is full for a while",
        faults.fill_disk,
        needs=Needs(disk_mb=120),
    ),
)
