"""Checks that only some scenarios need, among them that a fault had the intended effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.history import Call, Outcome
from tests.chaos.message_faults import INJECTED
from tests.chaos.scenario import FaultContext
from tests.support.processes import wait_until


def no_call_fails(_context: FaultContext, calls: Sequence[Call]) -> Iterator[str]:
    """Every call succeeds, apart from the refusals that the load provokes."""
    failed = [call for call in calls if call.outcome in {Outcome.UNKNOWN, Outcome.EXPIRED, Outcome.UNSENT}]
    if failed:
        first = failed[0]
        yield (
            f"{len(failed)} calls failed; the first: {first.outcome} by {first.error} ({first.detail}): {first.name}"
        )


def others_answer_for_a_locked_out_worker(context: FaultContext, calls: Sequence[Call]) -> Iterator[str]:
    """Every call that began while a worker was locked out of its database was answered by another one."""
    for began, ended in context.memory["locked out"]:
        during = [call for call in calls if began <= call.began <= ended]
        if not during:
            yield "no call began while the worker was locked out"
        yield from no_call_fails(context, during)


def some_operation_ran_twice(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """The resumed execution of some operation met its redelivered message."""
    if not any(times > 1 for times in context.cluster.executions().values()):
        yield "no operation was executed twice, so the scenario tested nothing"


def nothing_expires(_context: FaultContext, calls: Sequence[Call]) -> Iterator[str]:
    """No operation expires."""
    for call in calls:
        if call.outcome is Outcome.EXPIRED:
            yield f"expired, though it was not late: {call.name}"


def results_were_lost(_context: FaultContext, calls: Sequence[Call]) -> Iterator[str]:
    """Some caller had to repeat its call."""
    if not any(call.outcome is Outcome.REPLAYED for call in calls):
        yield "no operation was replayed, so no result was lost"


def everything_is_swept(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """A worker sweeps all expired entries, and logs it."""
    try:
        wait_until(lambda: context.cluster.database.expired_rows() == 0, timeout_seconds=30)
    except AssertionError:
        yield f"{context.cluster.database.expired_rows()} expired entries are not swept"
    if "sweep:" not in context.cluster.logs():
        yield "no worker has swept"


def a_late_beat_suffices(context: FaultContext, calls: Sequence[Call]) -> Iterator[str]:
    """No worker has swept yet, and a beat that starts only now gets everything swept."""
    if "sweep:" in context.cluster.logs():
        yield "a worker has swept without a beat"
    beat = context.cluster.beat(0)
    beat.start()
    try:
        yield from everything_is_swept(context, calls)
    finally:
        beat.teardown()


def ledgers_were_recomputed(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """A worker recomputed the ledgers. The runner checks that it found nothing wrong."""
    if "kvworker.recompute_ledgers" not in context.cluster.logs():
        yield "no worker has recomputed the ledgers"


def injections_were_refused(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """Workers received the injected messages, and logged it."""
    if not any(word in context.cluster.logs() for word in ("is refused", "is dropped", INJECTED)):
        yield "no worker logged an injected message"
