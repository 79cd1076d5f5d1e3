"""Faults of the callers of durable steps. Each function injects a fault, ends it, and asserts that it had an effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psutil

from tests.chaos.effects.load import EffectsLoad
from tests.chaos.message_faults import duplicate
from tests.chaos.process_faults import kill_worker, suspended
from tests.chaos.scenario import ClusterContext
from tests.chaos.server_faults import kill_postgres, kill_valkey

#: Beyond the lease, a frozen process stays frozen for at least so long.
_BEYOND_SECONDS: Final = (0.5, 1.5)


@dataclass
class EffectsContext(ClusterContext):
    """A cluster under the load of durable steps."""

    load: EffectsLoad


def kill_caller(context: EffectsContext) -> None:
    """Kill a caller during its calls, and start it again."""
    caller = context.rng.choice(context.load.callers)
    before = caller.pid
    caller.kill()
    context.load.restart(caller)
    assert caller.pid != before


def freeze_caller(context: EffectsContext) -> None:
    """Freeze a caller for longer than its leases, and let it go on where it stopped."""
    process = psutil.Process(context.rng.choice(context.load.callers).pid)
    process.suspend()
    try:
        _outlast_leases(context)
    finally:
        process.resume()


def lose_worker(context: EffectsContext) -> None:
    """Kill a worker and start it again, or freeze it for longer than the callers' leases."""
    context.rng.choice((kill_worker, _freeze_worker))(context)


def kill_server(context: EffectsContext) -> None:
    """Kill the broker or the database, and start it again on its data."""
    context.rng.choice((kill_valkey, kill_postgres))(context)


def disturb_all(context: EffectsContext) -> None:
    """Inject one fault after the other, of callers, workers, servers and messages."""
    faults = (kill_caller, freeze_caller, kill_worker, _freeze_worker, kill_valkey, kill_postgres, duplicate)
    context.next_of(faults)(context)


def _freeze_worker(context: EffectsContext) -> None:
    with suspended(context.rng.choice(context.cluster.workers)):
        _outlast_leases(context)


def _outlast_leases(context: EffectsContext) -> None:
    lease_seconds = context.load.plan.lease_seconds
    context.pause(*(lease_seconds + beyond for beyond in _BEYOND_SECONDS))
