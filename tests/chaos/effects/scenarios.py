"""The table of the scenarios of durable steps."""

from __future__ import annotations

from tests.chaos.effects import expectations as expect
from tests.chaos.effects import faults
from tests.chaos.effects.run import EffectsScenario
from tests.chaos.message_faults import duplicate

#: No step becomes unknown by the slowness of a busy machine.
_LONG_LEASE_SECONDS = 30.0
_AFTER_A_RESTART = (0.5, 2.5)
_UNKNOWN = (expect.some_step_becomes_unknown,)

EFFECTS_SCENARIOS: tuple[EffectsScenario, ...] = (
    EffectsScenario(
        "once-caller-killed",
        "a caller's process is killed during its durable steps and started again",
        faults.kill_caller,
        expects=_UNKNOWN,
        until=_UNKNOWN,
        is_brief=True,
    ),
    EffectsScenario(
        "once-caller-frozen",
        "a caller's process is frozen for longer than its leases, and resumed where it stopped",
        faults.freeze_caller,
        expects=_UNKNOWN,
        until=_UNKNOWN,
    ),
    EffectsScenario(
        "once-worker-lost",
        "a worker is killed and started again, or frozen for longer than the callers' leases",
        faults.lose_worker,
    ),
    EffectsScenario(
        "once-server-killed",
        "Valkey or PostgreSQL is killed and started again on its data",
        faults.kill_server,
        pause_seconds=_AFTER_A_RESTART,
    ),
    EffectsScenario(
        "once-duplicated",
        "messages are queued several times, and the clocks of two callers are an hour off; no step becomes unknown",
        duplicate,
        expects=(expect.no_call_fails,),
        lease_seconds=_LONG_LEASE_SECONDS,
        slow_seconds=0.5,
    ),
    EffectsScenario(
        "once-all",
        "all of these faults, one after the other",
        faults.disturb_all,
        expects=_UNKNOWN,
        until=_UNKNOWN,
        seconds=60.0,
    ),
)
