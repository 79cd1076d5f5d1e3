"""The facade's ``once``, ``step`` and ``get_or_set``. ``kvworker.durable`` does their work, and is imported by them."""

# ruff: noqa: PLC0415 - not every program needs durable steps.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast

from kvworker.model import JSONValue

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations
    from kvworker.durable.once import Key
    from kvworker.durable.once_tasks import OnceTask
    from kvworker.durable.runs import AsyncRun, Run
    from kvworker.durable.step_blocks import AsyncDurableStep, DurableStep
    from kvworker.durable.step_options import Exceptions, Reconcile

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
#: How long one caller may take to make a value before another one tries.
_FLIGHT_SECONDS = 60.0


class StepChoices(TypedDict, total=False):
    """The options that ``once``, ``step`` and ``run`` share.

    Attributes:
        lease_seconds: How long the step is held without a renewal; 60 by default. A heartbeat renews it while the
            function runs. After that time without one the step is unknown, for example because the process died.
        ttl_seconds: For how long an outcome is kept; a week by default. Afterwards the effect could happen again. None
            keeps it until it is deleted.
        wait_seconds: How long to wait for the outcome if another caller performs the effect; 0 by default.
        on_unknown: What to do with a step whose effect may have happened or not. None raises ``EffectUnknownError``. A
            function is given an ``UnknownStep``, looks at the outside world, and returns ``done(result)`` or
            ``not_done`` of ``kvworker.durable``. "retry" performs the effect again, for effects that are idempotent.
        record: Classes of errors that end the step as failed. Every later caller gets the same error.
        release: Classes of errors that say that the effect did not happen. The step may run again.
        timeout: Bound of each call of the store, in seconds.
    """

    lease_seconds: float
    ttl_seconds: float | None
    wait_seconds: float
    on_unknown: Reconcile | Literal["retry"] | None
    record: Exceptions
    release: Exceptions
    timeout: float | None


class DurableMethods:
    """Effects that happen at most once, for threads."""

    def once(
        self,
        namespace: str,
        key: Key = None,
        *,
        arguments: Callable[..., Any] | None = None,
        **options: Unpack[StepChoices],
    ) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
        """Return a decorator: the function runs at most once for each key, or it is known to be unknown if it ran.

        A call whose key has ended returns the recorded result, in any process, thread, task or machine.

        Args:
            namespace: The namespace of the steps.
            key: The key, or a function of the call's arguments that returns it. Without it the key is made of the
                function's name and the digest of its arguments.
            arguments: A function of the call's arguments that returns what identifies them, as a JSON value. Without it
                all arguments are compared, and must be JSON values.
            options: See ``StepChoices``.

        Raises:
            InvalidRequestError: An option is wrong, or the function is a coroutine or generator function.
        """
        from kvworker.durable.once import Calls, decorate
        from kvworker.durable.step_options import StepOptions

        chosen = StepOptions(namespace, **cast(Any, options))
        store = cast("KeyValueOperations", self)
        return lambda function: decorate(store, Calls(function, chosen, key, arguments))

    def step(
        self, namespace: str, key: str, *, arguments: JSONValue = None, **options: Unpack[StepChoices]
    ) -> DurableStep:
        """Return a durable step to use with ``with``. Perform the effect in the block if the step is ``needed``.

        Args:
            namespace: The step's namespace.
            key: The step's key.
            arguments: What the effect depends on, as any JSON value. Another value for the same key is refused.
            options: See ``StepChoices``.

        Raises:
            InvalidRequestError: An argument is wrong.
        """
        from kvworker.durable.step_blocks import DurableStep
        from kvworker.durable.step_options import StepOptions, StepRequest

        request = StepRequest(StepOptions(namespace, **cast(Any, options)), key, arguments)
        return DurableStep(cast("KeyValueOperations", self), request)

    def run(self, run_id: str, *, namespace: str = "runs", **options: Unpack[StepChoices]) -> Run:
        """Return a run: a plain function that is called again after a crash gets its steps' results and continues.

        Args:
            run_id: The run's name, such as the id of its task. Its steps' keys begin with it.
            namespace: The namespace of its steps.
            options: See ``StepChoices``; they apply to each step.

        Raises:
            InvalidRequestError: An argument is wrong.
        """
        from kvworker.durable.runs import Run
        from kvworker.durable.step_options import StepOptions

        return Run(cast("KeyValueOperations", self), run_id, StepOptions(namespace, **cast(Any, options)))

    @property
    def OnceTask(self) -> type[OnceTask]:  # noqa: N802 - a class
        """The base of Celery tasks of yours whose effect happens at most once: ``@app.task(base=store.OnceTask)``.

        A redelivered or repeated run of such a task returns the recorded result. See
        ``kvworker.durable.once_tasks.OnceTask`` for its options.
        """
        from kvworker.durable.once_tasks import once_task_of

        return once_task_of(cast("KeyValueOperations", self))

    def get_or_set(
        self,
        namespace: str,
        key: str,
        producer: Callable[[], Any],
        ttl_seconds: float | None = None,
        *,
        wait_seconds: float = _FLIGHT_SECONDS,
        lease_seconds: float = _FLIGHT_SECONDS,
        timeout: float | None = None,
    ) -> Any:
        """Return an entry's value. If there is none, one caller of the fleet makes it and all others wait for it.

        Args:
            namespace: The entry's namespace.
            key: The entry's key.
            producer: Makes the value: any JSON value. It runs again if its process died, so it must be safe to repeat.
            ttl_seconds: Seconds until a value that was made expires.
            wait_seconds: How long to wait while another caller makes it.
            lease_seconds: How long a caller may be silent before another one makes the value.
            timeout: Bound of each call of the store, in seconds.

        Raises:
            StepInProgressError: Another caller still makes it.
        """
        from kvworker.durable.single_flight import flight_options, get_or_set

        options = flight_options(namespace, wait_seconds, lease_seconds, timeout)
        return get_or_set(cast("KeyValueOperations", self), options, key, producer, ttl_seconds)


class AsyncDurableMethods:
    """Effects that happen at most once, for coroutines."""

    def once(
        self,
        namespace: str,
        key: Key = None,
        *,
        arguments: Callable[..., Any] | None = None,
        **options: Unpack[StepChoices],
    ) -> Callable[[Callable[_Arguments, Awaitable[_Result]]], Callable[_Arguments, Coroutine[Any, Any, _Result]]]:
        """Return a decorator for a coroutine function; see ``DurableMethods.once``.

        A holder that loses its step is cancelled, and its call raises ``StepLostError``.
        """
        from kvworker.durable.once import Calls, decorate_async
        from kvworker.durable.step_options import StepOptions

        chosen = StepOptions(namespace, **cast(Any, options))
        store = cast("AsyncKeyValueStore", self)
        return lambda function: decorate_async(store, Calls(function, chosen, key, arguments))

    def step(
        self, namespace: str, key: str, *, arguments: JSONValue = None, **options: Unpack[StepChoices]
    ) -> AsyncDurableStep:
        """Return a durable step to use with ``async with``; see ``DurableMethods.step``."""
        from kvworker.durable.step_blocks import AsyncDurableStep
        from kvworker.durable.step_options import StepOptions, StepRequest

        request = StepRequest(StepOptions(namespace, **cast(Any, options)), key, arguments)
        return AsyncDurableStep(cast("AsyncKeyValueStore", self), request)

    def run(self, run_id: str, *, namespace: str = "runs", **options: Unpack[StepChoices]) -> AsyncRun:
        """Return a run of coroutine functions; see ``DurableMethods.run``."""
        from kvworker.durable.runs import AsyncRun
        from kvworker.durable.step_options import StepOptions

        return AsyncRun(cast("AsyncKeyValueStore", self), run_id, StepOptions(namespace, **cast(Any, options)))

    async def get_or_set(
        self,
        namespace: str,
        key: str,
        producer: Callable[[], Any],
        ttl_seconds: float | None = None,
        *,
        wait_seconds: float = _FLIGHT_SECONDS,
        lease_seconds: float = _FLIGHT_SECONDS,
        timeout: float | None = None,
    ) -> Any:
        """Return an entry's value, and make it once if there is none; see ``DurableMethods.get_or_set``.

        The producer may be a coroutine function.
        """
        from kvworker.durable.single_flight import flight_options, get_or_set_async

        options = flight_options(namespace, wait_seconds, lease_seconds, timeout)
        return await get_or_set_async(cast("AsyncKeyValueStore", self), options, key, producer, ttl_seconds)
