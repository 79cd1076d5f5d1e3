"""Callers: threads that make operations one after the other and write down each call."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kvworker import KeyValueStore
from tests.chaos.history import Answer, Call, History, Outcome, classify
from tests.chaos.operations import Ask, Mind, World, founding, next_ask, timed

#: How long after the end of the faults an operation may stay unknown.
SETTLE_SECONDS = 30.0
#: How long the pause between two tries of an operation is at most.
_PAUSE_SECONDS = 0.2
#: Of the operations that are known not to be applied, so many are asked for again.
_ASKED_AGAIN = 0.3
_FOUNDING_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Pace:
    """How a caller calls: timeouts from and to, and the longest pause between two operations."""

    timeout_seconds: tuple[float, float] = (1.0, 3.0)
    pause_seconds: float = 0.02


def ask_once(ask: Ask, caller: str, timeout_seconds: float, history: History) -> Call:
    """Send an operation, and note the call."""
    told, error, began, took = timed(ask, timeout_seconds)
    call = Call(
        caller=caller,
        kind=ask.kind,
        namespace=ask.namespace,
        operation_id=ask.operation_id,
        steps=ask.steps,
        timeout_seconds=timeout_seconds,
        began=began,
        took_seconds=took,
        outcome=classify(error) if error else _outcome(ask, is_replay=told is not None and told.is_replay),
        error=type(error).__name__ if error else "",
        detail=str(error)[:300] if error else "",
        answers=told.answers if told else (),
    )
    history.add(call)
    return call


def _outcome(ask: Ask, *, is_replay: bool) -> Outcome:
    if not ask.operation_id:
        return Outcome.READ
    return Outcome.REPLAYED if is_replay else Outcome.APPLIED


class Caller:
    """Makes operations until it is to stop, each until its outcome is known."""

    def __init__(self, name: str, store: KeyValueStore, worlds: Sequence[World], history: History, seed: str) -> None:
        self.name = name
        self.pace = Pace()
        #: Whether a call is under way.
        self.is_calling = False
        self._history = history
        self._chance = Random(f"{seed}/{name}")  # noqa: S311 - it draws operations
        numbers = itertools.count()
        self.minds = [Mind(name, store, world, self._chance, numbers) for world in worlds]
        self._stopping = threading.Event()
        self._settle_by = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"caller-{name}", daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Let it settle what is unknown, and begin nothing new."""
        self._settle_by = time.monotonic() + settle_seconds
        self._stopping.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; False if it does not end."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def run_for(self, operations: int) -> None:
        """Make so many operations here and now."""
        for _ in range(operations):
            self._settle(next_ask(self._chance.choice(self.minds)))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._settle(next_ask(self._chance.choice(self.minds)))
            self._stopping.wait(self._chance.uniform(0, self.pace.pause_seconds))

    def _settle(self, ask: Ask) -> None:
        is_unsure = False
        while True:
            call = self._ask(ask)
            is_unsure = is_unsure or call.outcome is Outcome.UNKNOWN
            if not self._is_asked_again(ask, call, is_unsure=is_unsure):
                break
            time.sleep(self._chance.uniform(0, _PAUSE_SECONDS))
        if call.outcome is Outcome.READ or call.outcome.is_success:
            ask.learn(call)
        elif ask.kind == "swap":
            self._forget_register(ask)

    def _ask(self, ask: Ask) -> Call:
        self.is_calling = True
        call = ask_once(ask, self.name, self._chance.uniform(*self.pace.timeout_seconds), self._history)
        self.is_calling = False
        return call

    def _is_asked_again(self, ask: Ask, call: Call, *, is_unsure: bool) -> bool:
        if not ask.operation_id or call.outcome.is_success or call.outcome is Outcome.REFUSED:
            return False
        if time.monotonic() >= self._settle_by:
            return False
        return is_unsure or (not self._stopping.is_set() and self._chance.random() < _ASKED_AGAIN)

    def _forget_register(self, ask: Ask) -> None:
        for mind in self.minds:
            if mind.world.main == ask.namespace:
                mind.seen = Answer()


class Load:
    """Several callers of some worlds, through one store or several."""

    def __init__(
        self,
        stores: Sequence[KeyValueStore],
        history: History,
        *,
        prefix: str,
        seed: str,
        callers: int = 5,
        worlds: int = 1,
    ) -> None:
        self.history = history
        self.prefix = prefix
        self.worlds = [World(f"{prefix}.{number}") for number in range(worlds)]
        self.callers = [
            Caller(f"c{number}", stores[number % len(stores)], self.worlds, history, seed) for number in range(callers)
        ]
        self._founder = Caller("founder", stores[0], self.worlds, history, seed)

    def start(self, pace: Pace) -> None:
        """Found the worlds, and let the callers begin."""
        for mind in self._founder.minds:
            for ask in founding(mind):
                call = ask_once(ask, self._founder.name, _FOUNDING_TIMEOUT_SECONDS, self.history)
                assert call.outcome.is_success, f"before any fault: {call.detail}"
        for caller in self.callers:
            caller.pace = pace
            caller.start()

    def finish(self) -> list[str]:
        """The quiet phase: what is unknown is settled; names the callers that hang."""
        for caller in self.callers:
            caller.stop()
        give_up_at = time.monotonic() + SETTLE_SECONDS + 30.0
        return [
            f"caller {caller.name} never came back"
            for caller in self.callers
            if not caller.join(max(0.1, give_up_at - time.monotonic()))
        ]
