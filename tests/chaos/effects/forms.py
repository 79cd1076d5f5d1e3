"""The ways in which a caller runs a durable step whose effect goes to the recorder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, TypeAlias

from kvworker import (
    AsyncKeyValueStore,
    EffectUnknownError,
    KeyValueStore,
    StepBeginResult,
    StepFailedError,
    StepInProgressError,
)
from kvworker.client.durable_methods import StepChoices
from kvworker.durable import UnknownStep, done, not_done
from kvworker.durable.recorded_errors import recorded_error
from tests.chaos.effects.history import Journal, Settlement
from tests.chaos.effects.plan import ASKS, DECLINES, Plan
from tests.chaos.effects.recorder import RecorderClient

#: Runs a step by its key and arguments, and returns its receipt.
Form: TypeAlias = Callable[[str, str], str]

#: The stores of a process, for its threads and for its coroutines.
Stores: TypeAlias = tuple[KeyValueStore, AsyncKeyValueStore]

#: A begin that takes over loses against another one, and looks again.
_MOST_LOOKS: Final = 5


class Declined(Exception):  # noqa: N818 - it reads as what the step answers
    """The outcome of a step that its function declares: the effect has happened, and the answer is no."""

    def __init__(self, receipt: str) -> None:
        super().__init__(receipt)
        self.receipt = receipt


class Forms:
    """Runs steps in each way."""

    def __init__(self, stores: Stores, plan: Plan, recorder: RecorderClient, journal: Journal, rng: Random) -> None:
        self._store, self._async_store = stores
        self._plan = plan
        self._recorder = recorder
        self._journal = journal
        self._rng = rng

    @property
    def all(self) -> Mapping[str, Form]:
        """Each form by its name."""
        return {"tools": self.use_tools, "block": self.use_block, "coroutine": self.use_coroutine}

    def use_block(self, key: str, arguments: str) -> str:
        """Run the step as a block with a heartbeat."""
        with self._store.step(self._plan.namespace, key, arguments=arguments, **self._choices(key)) as step:
            if step.needed:
                step.finish(_outcome(_state_of(key), self.make_effect(key, arguments, step.token)))
            return str(step.result)

    def use_coroutine(self, key: str, arguments: str) -> str:
        """Run the step as a block of a coroutine, which is cancelled when it loses its lease."""
        return asyncio.run(self._run_coroutine(key, arguments))

    async def _run_coroutine(self, key: str, arguments: str) -> str:
        async with self._async_store.step(self._plan.namespace, key, arguments=arguments, **self._choices(key)) as step:
            if step.needed:
                before, after = self._plan.effect_pauses(self._rng)
                await asyncio.sleep(before)
                receipt = await asyncio.to_thread(self._recorder.make, key, step.token, arguments)
                await asyncio.sleep(after)
                await step.finish(_outcome(_state_of(key), receipt))
            return str(step.result)

    def _choices(self, key: str) -> StepChoices:
        choices: StepChoices = {"lease_seconds": self._plan.lease_seconds, "record": Declined}
        return {**choices, "on_unknown": self._reconcile} if key.startswith(ASKS) else choices

    def _reconcile(self, step: UnknownStep) -> Any:
        receipt = self.look(step.key, step.lost_token)
        return not_done if receipt is None else done(receipt)

    def use_tools(self, key: str, arguments: str) -> str:
        """Begin and finish the step by the tools, without a heartbeat."""
        begun = self._begin(key, arguments)
        for _ in range(_MOST_LOOKS):
            if begun.state != "unknown" or not key.startswith(ASKS):
                break
            begun = self._settle(key, arguments, begun)
        name = self._plan.namespace, key
        if begun.state == "in_progress":
            raise StepInProgressError(*name, str(begun.holder), begun.lease_seconds or 0.0)
        if begun.state == "unknown":
            raise EffectUnknownError(*name, str(begun.holder), begun.token or 0)
        if begun.state == "reserved":
            return self._perform(key, arguments, begun.token or 0)
        # The repetition of a begin has no value.
        value = begun.value if begun.has_value else self._store.step_status(*name).value
        return _outcome(begun.state, _receipt_in(value))

    def _begin(self, key: str, arguments: str, takeover_token: int | None = None) -> StepBeginResult:
        return self._store.step_begin(
            self._plan.namespace,
            key,
            holder="by hand",
            arguments=arguments,
            lease_seconds=self._plan.lease_seconds,
            takeover_token=takeover_token,
        )

    def _settle(self, key: str, arguments: str, unknown: StepBeginResult) -> StepBeginResult:
        token = unknown.token or 0
        receipt = self.look(key, token)
        if receipt is None:
            return self._begin(key, arguments, token)
        self._finish(key, token, receipt)
        return self._begin(key, arguments)

    def _finish(self, key: str, token: int, receipt: str) -> None:
        state = _state_of(key)
        value = recorded_error(Declined(receipt)) if state == "failed" else receipt
        self._store.step_finish(self._plan.namespace, key, token, state, value=value)

    def look(self, key: str, token: int) -> str | None:
        """Look whether the effect of an unknown step happened, and write the answer down."""
        effects = self._recorder.of(key)
        self._journal.add(Settlement(key, token, bool(effects), time.monotonic()))
        return effects[0].receipt if effects else None

    def _perform(self, key: str, arguments: str, token: int) -> str:
        receipt = self.make_effect(key, arguments, token)
        self._finish(key, token, receipt)
        return _outcome(_state_of(key), receipt)

    def make_effect(self, key: str, arguments: str, token: int) -> str:
        """Make the effect, with pauses in which faults find it."""
        before, after = self._plan.effect_pauses(self._rng)
        time.sleep(before)
        receipt = self._recorder.make(key, token, arguments)
        time.sleep(after)
        return receipt

    @staticmethod
    def receipt_of(step: Mapping[str, Any]) -> str:
        """Return the receipt of a step as the store holds it, or "" while it has none."""
        return _receipt_in(step.get("value", ""))

    @staticmethod
    def receipt_of_error(error: Exception) -> str:
        """Return the receipt that a failed step has raised."""
        return error.message if isinstance(error, StepFailedError) else str(error)


def _receipt_in(value: Any) -> str:
    return str(value["message"] if isinstance(value, dict) else value)


def _state_of(key: str) -> str:
    return "failed" if key.startswith(DECLINES) else "done"


def _outcome(state: str, receipt: str) -> str:
    if state == "failed":
        raise Declined(receipt)
    return receipt
