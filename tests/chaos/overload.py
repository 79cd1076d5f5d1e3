"""Overload: three times the calls that the workers can take, at a steady rate and not when answers allow it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import make_url

from kvworker import AsyncKeyValueStore, KVStoreError, Settings
from tests.chaos.history import Call
from tests.chaos.scenario import FaultContext

#: The time of each write. It leaves the processor free for the callers on the same machine.
_WRITE_SECONDS: Final = 0.05
_MEASURE_SECONDS: Final = 8.0
_OVERLOAD_SECONDS: Final = 60.0
_RECOVERY_SECONDS: Final = 2.0
_AFTER_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 5.0
_OVERLOAD: Final = 3.0
_LIGHT: Final = 0.3
_LEAST_GOODPUT: Final = 0.8
_NAMESPACE: Final = "flood"
_SLOW_WRITES: Final = f"""
    CREATE FUNCTION slow_write() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep({_WRITE_SECONDS}); RETURN NEW; END';
    CREATE TRIGGER slow_write BEFORE INSERT OR UPDATE ON kv_entries FOR EACH ROW
        WHEN (NEW.namespace = '{_NAMESPACE}') EXECUTE FUNCTION slow_write()
"""
_FAST_WRITES: Final = "DROP TRIGGER slow_write ON kv_entries; DROP FUNCTION slow_write"


class _Flood:
    """Callers that count what succeeds."""

    def __init__(self, stores: Sequence[AsyncKeyValueStore]) -> None:
        self._stores = itertools.cycle(stores)
        self._numbers = itertools.count()
        #: When each successful call ended.
        self.successes: list[float] = []
        #: When each failed call began.
        self.failures: list[float] = []

    async def measure_peak(self, seconds: float) -> float:
        """Make calls that each wait for the previous one, and return the calls that succeed in a second."""
        began = time.monotonic()
        await asyncio.gather(*(self._repeat(lambda: time.monotonic() < began + seconds) for _ in range(16)))
        return len(self.successes) / (time.monotonic() - began)

    async def run(self, calls_per_second: float, seconds: float) -> list[asyncio.Task[None]]:
        """Start calls at a steady rate, whether or not earlier ones are answered."""
        began, tasks = time.monotonic(), list[asyncio.Task[None]]()
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(elapsed * calls_per_second) + 1 - len(tasks)
            tasks += [asyncio.ensure_future(self._call()) for _ in range(due)]
            await asyncio.sleep(0.005)
        return tasks

    def goodput(self, began: float, ended: float) -> float:
        """Return the successful calls in a second of a time."""
        return sum(began <= moment < ended for moment in self.successes) / (ended - began)

    async def _repeat(self, may_go_on: Callable[[], bool]) -> None:
        while may_go_on():
            await self._call()

    async def _call(self) -> None:
        began = time.monotonic()
        try:
            await next(self._stores).set(_NAMESPACE, f"key {next(self._numbers) % 1000}", 1, timeout=_TIMEOUT_SECONDS)
        except KVStoreError:
            self.failures.append(began)
        else:
            self.successes.append(time.monotonic())


def overload(context: FaultContext) -> None:
    """Overload the workers for a minute, then make few calls. Keeps what succeeded among the figures."""
    settings = context.cluster.settings
    # Coalescing would need more callers than this machine can run beside the workers.
    settings = settings.model_copy(update={"facade": settings.facade.model_copy(update={"coalesce_calls": False})})
    database = str(make_url(context.cluster.database_url).database)
    context.cluster.postgres.execute(_SLOW_WRITES, database)
    try:
        context.figures |= asyncio.run(_flood(settings))
    finally:
        context.cluster.postgres.execute(_FAST_WRITES, database)


async def _flood(settings: Settings) -> dict[str, float]:
    async with AsyncKeyValueStore(settings) as one, AsyncKeyValueStore(settings) as another:
        flood = _Flood([one, another])
        peak = await flood.measure_peak(_MEASURE_SECONDS)
        began = time.monotonic()
        tasks = await flood.run(_OVERLOAD * peak, _OVERLOAD_SECONDS)
        ended = time.monotonic()
        tasks += await flood.run(_LIGHT * peak, _RECOVERY_SECONDS + _AFTER_SECONDS)
        await asyncio.gather(*tasks)
        return {
            "peak_calls_per_second": round(peak, 1),
            "goodput_ratio": round(flood.goodput(began, ended) / peak, 2),
            "failures_after_recovery": sum(moment > ended + _RECOVERY_SECONDS for moment in flood.failures),
        }


def goodput_stays(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """The rate of successful calls stays near its peak, and no call fails once the overload has ended."""
    if context.figures["goodput_ratio"] < _LEAST_GOODPUT:
        yield f"under overload only {context.figures['goodput_ratio']} of the peak rate succeeds"
    if context.figures["failures_after_recovery"]:
        yield f"{context.figures['failures_after_recovery']} calls fail although the overload has ended"
