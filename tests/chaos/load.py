"""Callers: threads that send one operation after the other and record each call."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kvworker import KeyValueStore
from tests.chaos.history import Answer, Call, History, Outcome, classify
from tests.chaos.operations import next_request, setup_requests
from tests.chaos.request import CallerState, NamespaceGroup, Request, send_timed

#: After the end of the faults, an operation may stay unknown for this time.
SETTLE_SECONDS = 30.0
#: The longest pause between two tries of an operation.
_PAUSE_SECONDS = 0.2
#: The share of operations that are retried although they are known not to be applied.
_RETRIED_SHARE = 0.3
_SETUP_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Pace:
    """A caller's pace: the bounds of its random timeouts, and the longest pause between two operations."""

    timeout_seconds: tuple[float, float] = (1.0, 3.0)
    pause_seconds: float = 0.02


def send_once(request: Request, caller: str, timeout_seconds: float, history: History) -> Call:
    """Send an operation, and record the call."""
    response, error, began, took = send_timed(request, timeout_seconds)
    call = Call(
        caller=caller,
        kind=request.kind,
        namespace=request.namespace,
        operation_id=request.operation_id,
        steps=request.steps,
        timeout_seconds=timeout_seconds,
        began=began,
        took_seconds=took,
        outcome=classify(error) if error else _outcome(request, is_replay=response is not None and response.is_replay),
        error=type(error).__name__ if error else "",
        detail=str(error)[:300] if error else "",
        answers=response.answers if response else (),
    )
    history.add(call)
    return call


def _outcome(request: Request, *, is_replay: bool) -> Outcome:
    if not request.operation_id:
        return Outcome.READ
    return Outcome.REPLAYED if is_replay else Outcome.APPLIED


class Caller:
    """Sends random operations until it is stopped, and repeats each until its outcome is known."""

    def __init__(
        self, name: str, store: KeyValueStore, groups: Sequence[NamespaceGroup], history: History, seed: str
    ) -> None:
        self.name = name
        self.pace = Pace()
        #: True while a call is in flight.
        self.is_calling = False
        self._history = history
        self._rng = Random(f"{seed}/{name}")  # noqa: S311 - chooses operations
        numbers = itertools.count()
        self.states = [CallerState(name, store, group, self._rng, numbers) for group in groups]
        self._stopping = threading.Event()
        self._settle_by = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"caller-{name}", daemon=True)

    def start(self) -> None:
        """Start to call."""
        self._thread.start()

    def stop(self, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Start no new operation, but continue until the outcome of the current one is known."""
        self._settle_by = time.monotonic() + settle_seconds
        self._stopping.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end.

        Returns:
            False if it is still running.
        """
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def run_for(self, operations: int) -> None:
        """Send a number of operations in the calling thread."""
        for _ in range(operations):
            self._send_until_known(next_request(self._rng.choice(self.states)))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._send_until_known(next_request(self._rng.choice(self.states)))
            self._stopping.wait(self._rng.uniform(0, self.pace.pause_seconds))

    def _send_until_known(self, request: Request) -> None:
        is_unsure = False
        while True:
            call = self._send(request)
            is_unsure = is_unsure or call.outcome is Outcome.UNKNOWN
            if not self._should_retry(request, call, is_unsure=is_unsure):
                break
            time.sleep(self._rng.uniform(0, _PAUSE_SECONDS))
        if call.outcome is Outcome.READ or call.outcome.is_success:
            request.on_success(call)
        elif request.kind == "swap":
            self._forget_register(request)

    def _send(self, request: Request) -> Call:
        self.is_calling = True
        call = send_once(request, self.name, self._rng.uniform(*self.pace.timeout_seconds), self._history)
        self.is_calling = False
        return call

    def _should_retry(self, request: Request, call: Call, *, is_unsure: bool) -> bool:
        if not request.operation_id or call.outcome.is_success or call.outcome is Outcome.REFUSED:
            return False
        if time.monotonic() >= self._settle_by:
            return False
        return is_unsure or (not self._stopping.is_set() and self._rng.random() < _RETRIED_SHARE)

    def _forget_register(self, request: Request) -> None:
        for state in self.states:
            if state.group.main == request.namespace:
                state.seen = Answer()


class Load:
    """Several callers that use some namespace groups, through one store or several."""

    def __init__(
        self,
        stores: Sequence[KeyValueStore],
        history: History,
        *,
        prefix: str,
        seed: str,
        callers: int = 5,
        groups: int = 1,
    ) -> None:
        self.history = history
        self.prefix = prefix
        self.groups = [NamespaceGroup(f"{prefix}.{number}") for number in range(groups)]
        self.callers = [
            Caller(f"c{number}", stores[number % len(stores)], self.groups, history, seed) for number in range(callers)
        ]
        self._preparer = Caller("preparer", stores[0], self.groups, history, seed)

    def start(self, pace: Pace) -> None:
        """Prepare the groups, and start the callers."""
        for state in self._preparer.states:
            for request in setup_requests(state):
                call = send_once(request, self._preparer.name, _SETUP_TIMEOUT_SECONDS, self.history)
                assert call.outcome.is_success, f"before any fault: {call.detail}"
        for caller in self.callers:
            caller.pace = pace
            caller.start()

    def finish(self) -> list[str]:
        """Stop the callers and wait until they know all outcomes.

        Returns:
            A problem for each caller that hangs.
        """
        for caller in self.callers:
            caller.stop()
        give_up_at = time.monotonic() + SETTLE_SECONDS + 30.0
        return [
            f"caller {caller.name} never came back"
            for caller in self.callers
            if not caller.join(max(0.1, give_up_at - time.monotonic()))
        ]
