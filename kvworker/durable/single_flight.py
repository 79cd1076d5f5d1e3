"""``get_or_set``: one caller of the fleet makes a missing value, and all others wait for it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvworker.durable.step_blocks import AsyncDurableStep, DurableStep
from kvworker.durable.step_options import StepOptions, StepRequest
from kvworker.model import GetResult, JSONValue

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations


def flight_options(namespace: str, wait_seconds: float, lease_seconds: float, timeout: float | None) -> StepOptions:
    """Return the options of the step of the caller that makes the value, which anybody may repeat."""
    return StepOptions(
        namespace,
        lease_seconds=lease_seconds,
        wait_seconds=wait_seconds,
        on_unknown="retry",
        release=Exception,
        timeout=timeout,
    )


def flight_request(options: StepOptions, key: str) -> StepRequest:
    """Return the attempt to be the one that makes the value. Its step exists only meanwhile."""
    return StepRequest(options, f"get_or_set:{hashlib.sha256(key.encode()).hexdigest()[:32]}", label="get_or_set")


def storing(step: DurableStep | AsyncDurableStep, key: str, value: JSONValue, ttl_seconds: float | None) -> list[Any]:
    """Return the operations of a batch that stores the value only if the caller is still the one to make it."""
    return [
        {"tool": "kv_step_finish", "key": step.key, "token": step.token, "state": "released"},
        {"tool": "kv_set", "key": key, "value": value, "ttl_seconds": ttl_seconds},
    ]


def get_or_set(
    store: KeyValueOperations,
    options: StepOptions,
    key: str,
    producer: Callable[[], Any],
    ttl_seconds: float | None,
) -> Any:
    """Return the entry's value, and make it first if there is none."""
    found: GetResult = store.get(options.namespace, key, timeout=options.timeout)
    if found.found:
        return found.value
    with DurableStep(store, flight_request(options, key)) as step:
        found = store.get(options.namespace, key, timeout=options.timeout)
        if found.found:
            step.release()
            return found.value
        value = producer()
        store.batch(options.namespace, storing(step, key, value, ttl_seconds), timeout=options.timeout)
        step.settled()
    return value


async def get_or_set_async(
    store: AsyncKeyValueStore,
    options: StepOptions,
    key: str,
    producer: Callable[[], Any],
    ttl_seconds: float | None,
) -> Any:
    """Do what ``get_or_set`` does on the event loop. The producer may be a coroutine function."""
    found: GetResult = await store.get(options.namespace, key, timeout=options.timeout)
    if found.found:
        return found.value
    async with AsyncDurableStep(store, flight_request(options, key)) as step:
        found = await store.get(options.namespace, key, timeout=options.timeout)
        if found.found:
            await step.release()
            return found.value
        made = producer()
        value = await made if inspect.isawaitable(made) else made
        await store.batch(options.namespace, storing(step, key, value, ttl_seconds), timeout=options.timeout)
        await step.settled()
    return value
