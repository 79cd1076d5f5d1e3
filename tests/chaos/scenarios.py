"""The table of scenarios."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos import caller_faults, hostile_faults, message_faults, overload, process_faults, server_faults, soak
from tests.chaos import expectations as expect
from tests.chaos.cluster import VISIBILITY_TIMEOUT_SECONDS
from tests.chaos.effects.run import EffectsScenario
from tests.chaos.effects.scenarios import EFFECTS_SCENARIOS
from tests.chaos.load import Pace
from tests.chaos.needs import THREADS, Needs
from tests.chaos.scenario import FaultContext, Scenario

_HOUR_SECONDS = 3600
_AFTER_A_RESTART = (0.5, 2.5)
_PATIENT = Pace((4.0, 6.0))
#: Some callers must still wait when their message is redelivered.
_BEYOND_REDELIVERY = Pace((1.0, 2.0 * VISIBILITY_TIMEOUT_SECONDS))
#: With more callers than slots, messages pile up in the queue while the workers are frozen.
_MORE_THAN_SLOTS = 12


def _injected(name: str, description: str, fault: Callable[[FaultContext], None]) -> Scenario:
    return Scenario(
        name,
        description,
        fault,
        expects=(expect.injections_were_refused, expect.no_call_fails),
        pace=_PATIENT,
        callers=_MORE_THAN_SLOTS,
    )


SCENARIOS: tuple[Scenario | EffectsScenario, ...] = (
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
        "workers are stopped by SIGTERM and started again, in turn; no call fails",
        process_faults.roll_worker,
        expects=(expect.no_call_fails,),
        pace=Pace((8.0, 10.0)),
    ),
    Scenario(
        "worker-frozen",
        "a worker is frozen during its operations, longer than the visibility timeout, and resumed",
        process_faults.freeze_worker,
        pace=_BEYOND_REDELIVERY,
        expects=(expect.some_operation_ran_twice,),
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
        "postgres-frozen",
        "PostgreSQL is frozen until a worker gets no answer in time, and resumed",
        server_faults.freeze_postgres,
    ),
    Scenario(
        "standby-promoted",
        "the primary is killed or frozen, and its synchronous standby promoted; then it gets a new standby",
        server_faults.promote_standby,
        needs=Needs(has_standby=True),
        pause_seconds=_AFTER_A_RESTART,
    ),
    Scenario(
        "backends-terminated",
        "PostgreSQL closes the workers' connections",
        server_faults.terminate_backends,
        pause_seconds=(0.05, 0.2),
    ),
    Scenario(
        "connections-exhausted", "other clients hold all of PostgreSQL's connections", server_faults.exhaust_connections
    ),
    Scenario(
        "worker-locked-out",
        "the database lets one worker in no more, then again; the others answer every call meanwhile",
        server_faults.lock_out_worker,
        needs=Needs(own_role=True),
        expects=(expect.others_answer_for_a_locked_out_worker,),
        pace=_PATIENT,
    ),
    Scenario("read-only", "PostgreSQL refuses every write for a while", server_faults.make_read_only),
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
        expects=(expect.everything_is_swept, expect.ledgers_were_recomputed),
    ),
    Scenario(
        "no-beat",
        "no beat sends sweeps while the load lasts; then one starts",
        process_faults.let_expired_pile_up,
        expects=(expect.a_late_beat_suffices,),
    ),
    Scenario(
        "clock-ahead",
        "the clock of one of the workers is an hour ahead",
        process_faults.use_wrong_clock,
        needs=Needs(clock_off_seconds=_HOUR_SECONDS),
        expects=(expect.nothing_expires, expect.no_call_fails),
        pace=_PATIENT,
    ),
    Scenario(
        "clock-behind",
        "the clock of one of the workers is an hour behind",
        process_faults.use_wrong_clock,
        needs=Needs(clock_off_seconds=-_HOUR_SECONDS),
        expects=(expect.nothing_expires, expect.no_call_fails),
        pace=_PATIENT,
    ),
    Scenario(
        "duplicated",
        "messages are queued several times, at once or much later",
        message_faults.duplicate,
        # The copies must arrive before their deadline.
        pace=_PATIENT,
        callers=_MORE_THAN_SLOTS,
    ),
    Scenario("reordered", "messages in the queue are shuffled", message_faults.reorder, callers=_MORE_THAN_SLOTS),
    _injected("truncated", "messages are cut off", message_faults.truncate),
    _injected("unknown-version", "messages have another version", message_faults.unknown_version),
    _injected("oversized", "messages exceed the limits", message_faults.oversize),
    _injected("pickle", "messages hold a pickle that would run code", message_faults.use_pickle),
    _injected("hostile-types", "messages have fields of unexpected types", message_faults.use_hostile_types),
    _injected("undecodable", "bytes that raise when they are decoded", hostile_faults.use_undecodable_bytes),
    _injected(
        "decompression-bomb", "small messages would decode to a large body", hostile_faults.use_decompression_bomb
    ),
    Scenario(
        "results-lost",
        "results are deleted before they are read",
        server_faults.lose_results,
        expects=(expect.results_were_lost,),
        until=(expect.results_were_lost,),
        pause_seconds=_AFTER_A_RESTART,
    ),
    Scenario(
        "caller-forked",
        "the callers' process forks, and its child uses the same stores",
        caller_faults.fork_caller,
        expects=(expect.no_call_fails,),
        pace=_PATIENT,
    ),
    Scenario(
        "many-threads",
        "32 threads use one store",
        caller_faults.call_at_once,
        callers=32,
        stores=1,
        pace=_PATIENT,
        expects=(expect.no_call_fails,),
    ),
    Scenario(
        "overload",
        "three times the calls that the workers can take, for a minute: most of the peak rate still succeeds",
        overload.overload,
        expects=(overload.goodput_stays,),
        pace=_PATIENT,
        seconds=1.0,
        is_brief=False,
    ),
    Scenario(
        "soak",
        "no fault, but 201 namespaces and 8 workers for a long time: memory, connections and files stay flat",
        soak.sample,
        needs=Needs(workers=(THREADS,) * 8, beats=1, own_memory=True),
        expects=(expect.no_call_fails, soak.usage_is_flat),
        pause_seconds=(4.0, 6.0),
        pace=_PATIENT,
        callers=6,
        groups=67,
        observe_seconds=2.0,
        seconds=600.0,
        is_brief=False,
    ),
    *EFFECTS_SCENARIOS,
)
