"""What scenarios expect beyond what always holds, and how it is seen that a fault did what it was for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.history import Call, Outcome
from tests.chaos.message_faults import INJECTED
from tests.chaos.scene import Scene
from tests.support.processes import wait_until


def nobody_notices(_scene: Scene, calls: Sequence[Call]) -> Iterator[str]:
    """No call fails but by the refusals that the load provokes."""
    noticed = [call for call in calls if call.outcome in {Outcome.UNKNOWN, Outcome.EXPIRED, Outcome.UNSENT}]
    if noticed:
        first = noticed[0]
        yield (
            f"callers noticed, in {len(noticed)} calls; the first: {first.outcome} by {first.error} ({first.detail}):"
            f" {first.name}"
        )


def some_ran_twice(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """A stale execution met the redelivered one."""
    if not any(times > 1 for times in scene.stand.executions().values()):
        yield "no operation was executed twice, so nothing was put to the test"


def nothing_expires(_scene: Scene, calls: Sequence[Call]) -> Iterator[str]:
    """No operation is found to be too late."""
    for call in calls:
        if call.outcome is Outcome.EXPIRED:
            yield f"expired, though it was not late: {call.name}"


def results_were_lost(_scene: Scene, calls: Sequence[Call]) -> Iterator[str]:
    """Some caller had to ask again."""
    if not any(call.outcome is Outcome.REPLAYED for call in calls):
        yield "no operation was replayed, so no result was lost"


def all_is_swept(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """What has expired goes away, and a worker says so."""
    try:
        wait_until(lambda: scene.stand.database.expired_rows() == 0, timeout_seconds=30)
    except AssertionError:
        yield f"{scene.stand.database.expired_rows()} expired entries are not swept"
    if "sweep:" not in scene.stand.logs():
        yield "no worker has swept"


def a_late_beat_suffices(scene: Scene, calls: Sequence[Call]) -> Iterator[str]:
    """Nobody has swept yet; a beat that starts only now has all swept."""
    if "sweep:" in scene.stand.logs():
        yield "somebody has swept without a beat"
    beat = scene.stand.beat(0)
    beat.start()
    try:
        yield from all_is_swept(scene, calls)
    finally:
        beat.teardown()


def recomputes_found_nothing(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """The ledgers were recomputed."""
    if "kvworker.recompute_ledgers" not in scene.stand.logs():
        yield "no worker has recomputed the ledgers"


def injections_were_refused(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """Workers took what was injected, and said so."""
    if not any(word in scene.stand.logs() for word in ("is refused", "is dropped", INJECTED)):
        yield "no worker says anything of a message that was injected"
