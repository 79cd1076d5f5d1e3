"""Renews the leases of the steps that this process holds: one thread for all of them, started when it is needed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import WeakSet, ref

from kvworker.client.base import KeyValueOperations, PendingResult
from kvworker.durable.step_actions import HeldStep
from kvworker.errors import InvalidValueTypeError, KVStoreError, StepLostError
from kvworker.fork_safety import ProcessLocal

logger = logging.getLogger(__name__)

#: A lease is renewed after this part of its length, so that two renewals may fail.
RENEWAL_PART: Final = 1 / 3
#: After a failed renewal another is tried after this part of the lease, and at the soonest after the other number.
_RETRY_PART: Final = 1 / 10
_MIN_RETRY_SECONDS: Final = 0.05
_MIN_TIMEOUT_SECONDS: Final = 0.5
#: The thread ends when it had nothing to do for this long.
_IDLE_SECONDS: Final = 5.0


def renewal_timeout(step: HeldStep) -> float:
    """Return the timeout of a renewal, which leaves time for another one."""
    return max(_MIN_TIMEOUT_SECONDS, step.request.options.lease_seconds * RENEWAL_PART)


class Heartbeat:
    """Renews steps in time, and runs other short work at a time. It never waits for an answer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: What to do next by the object that it is for, and when.
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        #: The steps to renew. One that its caller has dropped must run out.
        self._held: WeakSet[HeldStep] = WeakSet()
        self._thread: threading.Thread | None = None

    def hold(self, store: KeyValueOperations, step: HeldStep) -> None:
        """Renew a step until ``forget``, or until it is lost or dropped."""
        with self._changed:
            self._held.add(step)
            self._renew_later(store, step, step.request.options.lease_seconds * RENEWAL_PART)

    def call_later(self, owner: object, seconds: float, work: Callable[[], None]) -> None:
        """Do something later, in the heartbeat's thread, unless ``forget`` is called before. It must not wait."""
        with self._changed:
            self._due[owner] = time.monotonic() + seconds, work
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kvworker-steps", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, owner: object) -> bool:
        """Do nothing more for the owner. Return whether there was something to do."""
        with self._changed:
            if not isinstance(owner, HeldStep):
                return self._due.pop(owner, None) is not None
            was_held = owner in self._held
            self._held.discard(owner)
            self._due.pop(ref(owner), None)
            return was_held

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:
                logger.exception("the heartbeat of durable steps failed once; it goes on")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next thing to do. None ends the thread."""
        with self._changed:
            idle_until = time.monotonic() + _IDLE_SECONDS
            while True:
                now = time.monotonic()
                if self._due:
                    owner, (moment, work) = min(self._due.items(), key=lambda item: item[1][0])
                    if moment <= now:
                        del self._due[owner]
                        return work
                    self._changed.wait(moment - now)
                    idle_until = time.monotonic() + _IDLE_SECONDS
                elif idle_until <= now:
                    self._thread = None
                    return None
                else:
                    self._changed.wait(idle_until - now)

    def _renew_later(self, store: KeyValueOperations, step: HeldStep, seconds: float) -> None:
        reference = ref(step)
        self.call_later(reference, max(_MIN_RETRY_SECONDS, seconds), partial(self._renew, store, reference))

    def _renew(self, store: KeyValueOperations, reference: ref[HeldStep]) -> None:
        with self._changed:
            step = reference()
            if step is None or step not in self._held:
                return
            # Planned before this one is sent: an answer may come at once, or never.
            self._renew_later(store, step, step.request.options.lease_seconds * RENEWAL_PART)
        sent_at = time.monotonic()
        if sent_at >= step.valid_until:
            # Others may take over from now on. A renewal may still succeed, so it is tried further.
            step.lost.set()
        try:
            pending = store.submit("kv_step_renew", step.renewal(), timeout=renewal_timeout(step))
            pending.when_done(lambda: self._answered(store, step, pending, sent_at))
        except KVStoreError as error:
            self._failed(store, step, error)

    def _answered(self, store: KeyValueOperations, step: HeldStep, pending: PendingResult, sent_at: float) -> None:
        try:
            pending.result()
        except (StepLostError, InvalidValueTypeError):
            # The step may have been finished meanwhile, by its own holder.
            if self.forget(step):
                step.lost.set()
        except KVStoreError as error:
            self._failed(store, step, error)
        else:
            step.renewed(sent_at)

    def _failed(self, store: KeyValueOperations, step: HeldStep, error: KVStoreError) -> None:
        with self._changed:
            if step not in self._held:
                return
            self._renew_later(store, step, step.request.options.lease_seconds * _RETRY_PART)
        logger.warning("the lease of a durable step could not be renewed yet: %s", type(error).__name__)


#: This process's heartbeat.
heartbeat: Final = ProcessLocal(Heartbeat)
