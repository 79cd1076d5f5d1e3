"""``python -m tests.chaos.effects.caller``: a process that calls durable steps until SIGTERM, and writes a journal."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import click

from kvworker import AsyncKeyValueStore, KeyValueStore, Settings
from kvworker.errors import (
    EffectUnknownError,
    IdempotencyConflictError,
    KVStoreError,
    OperationExpiredError,
    QueueUnavailableError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
)
from tests.chaos.effects.forms import Declined, Form, Forms, Stores
from tests.chaos.effects.history import Call, Journal, Outcome
from tests.chaos.effects.plan import Plan
from tests.chaos.effects.recorder import RecorderClient
from tests.chaos.history import UNKNOWNS
from tests.chaos.history import Outcome as StoreOutcome
from tests.chaos.history import classify as classify_store

_THREADS: Final = 3
_MOST_PAUSE_SECONDS: Final = 0.05
_WRONG_CLOCK: Final = Path(__file__).parents[1] / "wrong_clock" / "sitecustomize.py"
_OUTCOMES: Final[Mapping[type[Exception], Outcome]] = {
    Declined: Outcome.FAILED,
    StepFailedError: Outcome.FAILED,
    EffectUnknownError: Outcome.UNKNOWN,
    StepInProgressError: Outcome.IN_PROGRESS,
    StepLostError: Outcome.LOST,
    IdempotencyConflictError: Outcome.CONFLICT,
}


def classify(error: Exception) -> Outcome:
    """Classify what a call has raised."""
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome
    is_explained = isinstance(error, UNKNOWNS) or (
        isinstance(error, KVStoreError) and classify_store(error) in {StoreOutcome.EXPIRED, StoreOutcome.UNSENT}
    )
    return Outcome.UNAVAILABLE if is_explained else Outcome.DEFECT


class StepCaller:
    """Calls steps one after the other, and writes each call down before and after."""

    def __init__(self, name: str, forms: Mapping[str, Form], plan: Plan, journal: Journal, rng: Random) -> None:
        self._name = name
        self._forms = forms
        self._plan = plan
        self._journal = journal
        self._rng = rng

    def call_until(self, stopping: threading.Event) -> None:
        """Call random steps until the event is set."""
        while not stopping.is_set():
            key = self._plan.next_key(self._rng)
            self.call(key, self._plan.next_arguments(key, self._rng))
            stopping.wait(self._rng.uniform(0, _MOST_PAUSE_SECONDS))

    def call(self, key: str, arguments: str) -> Call:
        """Call one step, in a random form."""
        form = self._rng.choice(list(self._forms))
        begun = Call(self._name, key, form, arguments, time.monotonic())
        self._journal.add(begun)
        try:
            receipt = self._forms[form](key, arguments)
        except Exception as error:  # noqa: BLE001 - the verdict judges it
            outcome = classify(error)
            receipt = Forms.receipt_of_error(error) if outcome.is_final else ""
            detail = "" if outcome.is_final else f"{type(error).__name__}: {error}"[:300]
        else:
            outcome, detail = Outcome.RETURNED, ""
        ended = replace(begun, ended=time.monotonic(), outcome=outcome, receipt=receipt, detail=detail)
        self._journal.add(ended)
        return ended


@click.command()
@click.option("--config", type=click.Path(path_type=Path), required=True)
@click.option("--port", type=int, required=True)
@click.option("--journal", "path", type=click.Path(path_type=Path), required=True)
@click.option("--plan", "plan_text", required=True)
@click.option("--name", required=True)
@click.option("--seed", required=True)
@click.option("--clock-off-seconds", type=int, default=0)
def main(config: Path, port: int, path: Path, plan_text: str, name: str, seed: str, clock_off_seconds: int) -> None:
    """Call steps from several threads until SIGTERM."""
    use_wrong_clock(clock_off_seconds)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    plan, journal, recorder = Plan(**json.loads(plan_text)), Journal(path), RecorderClient(port)
    with open_stores(Settings.load(config)) as stores:
        callers = []
        for number in range(_THREADS):
            rng = Random(f"{seed}/{os.getpid()}/{number}")  # noqa: S311 - chooses calls
            forms = Forms(stores, plan, recorder, journal, rng)
            callers.append(StepCaller(f"{name}-{os.getpid()}/{number}", forms.all, plan, journal, rng))
        threads = [threading.Thread(target=caller.call_until, args=(stopping,)) for caller in callers]
        _await_the_first_answers(stores, plan)
        for thread in threads:
            thread.start()
        print("ready", flush=True)  # noqa: T201 - the starter waits for it
        for thread in threads:
            thread.join()


def run() -> None:
    """Run the command of this process."""
    main()


def use_wrong_clock(off_seconds: int) -> None:
    """Shift this process's clock, as the file does for a process that starts with it."""
    os.environ["CLOCK_OFF_SECONDS"] = str(off_seconds)
    runpy.run_path(str(_WRONG_CLOCK))


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Open the stores of a process."""
    with KeyValueStore(settings) as store:
        other = AsyncKeyValueStore(settings)
        try:
            yield store, other
        finally:
            asyncio.run(other.close())


def _await_the_first_answers(stores: Stores, plan: Plan) -> None:
    """Call until a worker answers: the deadlines of a process's first calls go by its own clock, which may be wrong."""
    store, other = stores
    unanswered: list[Callable[[], object]] = [
        lambda: store.get(plan.namespace, "no key"),
        lambda: asyncio.run(other.get(plan.namespace, "no key")),
    ]
    while unanswered:
        with suppress(OperationExpiredError, QueueUnavailableError, *UNKNOWNS):
            unanswered[0]()
            del unanswered[0]


if __name__ == "__main__":
    run()
