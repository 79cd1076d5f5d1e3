"""The table of scenarios."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos import caller_faults, message_faults, process_faults, server_faults, soak
from tests.chaos import expectations as expect
from tests.chaos.load import Pace
from tests.chaos.scene import Scenario, Scene
from tests.chaos.stand import THREADS, VISIBILITY_TIMEOUT_SECONDS, Needs

_HOUR_SECONDS = 3600
_AFTER_A_RESTART = (0.5, 2.5)
_PATIENT = Pace((4.0, 6.0))
#: So that some callers still wait when their message is delivered again.
_BEYOND_REDELIVERY = Pace((1.0, 2.0 * VISIBILITY_TIMEOUT_SECONDS))
#: So that messages wait in the queue while the workers are held.
_MORE_THAN_SLOTS = 12


def _injected(name: str, what: str, fault: Callable[[Scene], None]) -> Scenario:
    return Scenario(
        name,
        what,
        fault,
        expects=(expect.injections_were_refused, expect.nobody_notices),
        pace=_PATIENT,
        callers=_MORE_THAN_SLOTS,
    )


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "worker-killed",
        "a worker's main process is killed and started again",
        process_faults.kill_worker,
        pace=_BEYOND_REDELIVERY,
    ),
    Scenario(
        "child-killed", "a process of a worker's pool is killed", process_faults.kill_child, pace=_BEYOND_REDELIVERY
    ),
    Scenario(
        "rolling-restart",
        "workers are stopped by SIGTERM and started again, in turn; nobody notices",
        process_faults.roll_worker,
        expects=(expect.nobody_notices,),
        pace=Pace((8.0, 10.0)),
    ),
    Scenario(
        "worker-frozen",
        "a worker is frozen amid its operations, past the visibility timeout, and goes on",
        process_faults.freeze_worker,
        pace=_BEYOND_REDELIVERY,
        expects=(expect.some_ran_twice,),
    ),
    Scenario(
        "valkey-killed",
        "Valkey is killed and started again on its data",
        server_faults.kill_valkey,
        pause_seconds=_AFTER_A_RESTART,
    ),
    Scenario(
        "valkey-emptied",
        "Valkey is killed and started again without its data",
        server_faults.kill_valkey_and_data,
        pause_seconds=_AFTER_A_RESTART,
    ),
    Scenario("connections-cut", "every connection to Valkey is cut", server_faults.cut_connections),
    Scenario("postgres-killed", "PostgreSQL is killed and started again on its data", server_faults.kill_postgres),
    Scenario(
        "backends-terminated",
        "PostgreSQL closes the workers' connections",
        server_faults.terminate_backends,
        pause_seconds=(0.05, 0.2),
    ),
    Scenario(
        "connections-exhausted", "other clients hold all of PostgreSQL's connections", server_faults.exhaust_connections
    ),
    Scenario("read-only", "PostgreSQL refuses every write for a while", server_faults.be_read_only),
    Scenario(
        "sqlite-locked",
        "another process holds SQLite's lock",
        server_faults.lock_sqlite,
        needs=Needs(database="sqlite"),
    ),
    Scenario(
        "disk-full",
        "the file system under PostgreSQL is full for a while",
        server_faults.fill_disk,
        needs=Needs(disk_mb=120),
    ),
    Scenario(
        "two-beats",
        "two beats send each task twice; one of them is killed and started again",
        process_faults.restart_beat,
        needs=Needs(beats=2),
        expects=(expect.all_is_swept, expect.recomputes_found_nothing),
    ),
    Scenario(
        "no-beat",
        "nobody sweeps for as long as the load lasts; then a beat starts",
        process_faults.let_expired_pile_up,
        expects=(expect.a_late_beat_suffices,),
    ),
    Scenario(
        "clock-ahead",
        "the clock of one of the workers is an hour ahead",
        process_faults.use_wrong_clock,
        needs=Needs(clock_off_seconds=_HOUR_SECONDS),
        expects=(expect.nothing_expires, expect.nobody_notices),
        pace=_PATIENT,
    ),
    Scenario(
        "clock-behind",
        "the clock of one of the workers is an hour behind",
        process_faults.use_wrong_clock,
        needs=Needs(clock_off_seconds=-_HOUR_SECONDS),
        expects=(expect.nothing_expires, expect.nobody_notices),
        pace=_PATIENT,
    ),
    Scenario(
        "duplicated",
        "messages are in the queue several times, soon or much later",
        message_faults.duplicate,
        # So that copies come before their deadline.
        pace=_PATIENT,
        callers=_MORE_THAN_SLOTS,
    ),
    Scenario("reordered", "messages in the queue are shuffled", message_faults.reorder, callers=_MORE_THAN_SLOTS),
    _injected("truncated", "messages end too early", message_faults.truncate),
    _injected("unknown-version", "messages are of another version", message_faults.unknown_version),
    _injected("oversized", "messages hold more than is taken", message_faults.oversize),
    _injected("pickle", "messages hold a pickle that would run code", message_faults.use_pickle),
    _injected("hostile-types", "messages have fields of types that nobody expects", message_faults.be_hostile),
    Scenario(
        "results-lost",
        "results are deleted before they are read",
        server_faults.lose_results,
        expects=(expect.results_were_lost,),
        pause_seconds=_AFTER_A_RESTART,
    ),
    Scenario(
        "caller-forked",
        "the callers' process forks, and its child uses the same stores",
        caller_faults.fork_caller,
        expects=(expect.nobody_notices,),
        pace=_PATIENT,
    ),
    Scenario(
        "many-threads",
        "32 threads use one store",
        caller_faults.call_at_once,
        callers=32,
        stores=1,
        pace=_PATIENT,
        expects=(expect.nobody_notices,),
    ),
    Scenario(
        "soak",
        "no fault, but 201 namespaces and 8 workers for a long time: memory, connections and files stay flat",
        soak.sample,
        needs=Needs(workers=(THREADS,) * 8, beats=1),
        expects=(expect.nobody_notices, soak.all_is_flat),
        pause_seconds=(4.0, 6.0),
        pace=_PATIENT,
        callers=6,
        worlds=67,
        look_seconds=2.0,
        seconds=600.0,
        is_brief=False,
    ),
)
