"""``once``: a function whose effect happens at most once for each key, in any process, thread, task or machine."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from kvworker.durable.step_blocks import AsyncDurableStep, DurableStep
from kvworker.durable.step_options import StepOptions, StepRequest
from kvworker.errors import InvalidRequestError, ValueSerializationError
from kvworker.model import arguments_digest, encode_value

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations

_Function = TypeVar("_Function", bound=Callable[..., Any])
#: A key, or a function that makes it from the call's arguments.
Key: TypeAlias = str | Callable[..., str] | None
_DIGEST_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class Calls:
    """Turns the calls of a function into attempts at durable steps.

    Args:
        function: The function.
        options: The steps' options.
        key: The key, or a function of the call's arguments that returns it. None makes one of the function's name and
            its arguments.
        arguments: A function of the call's arguments that returns what identifies them, as a JSON value. None compares
            all of them.
    """

    function: Callable[..., Any]
    options: StepOptions
    key: Key = None
    arguments: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The function's full name."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"{getattr(self.function, '__module__', '')}.{name}"

    def request(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StepRequest:
        """Return the attempt that a call is.

        Raises:
            InvalidRequestError: The key is not a string, or an argument is not a JSON value.
            TypeError: The arguments do not fit the function.
        """
        digest = self._digest(args, kwargs)
        return StepRequest(self.options, self._key(args, kwargs, digest), digest, label=self.name.rpartition(".")[2])

    def check_name(self) -> None:
        """Check that the function can be told from others by its name and its arguments, if they make the key.

        Raises:
            InvalidRequestError: It cannot.
        """
        if self.key is None and (not inspect.isfunction(self.function) or self.function.__name__ == "<lambda>"):
            raise InvalidRequestError(
                f"{self.name} is no function that a def statement defines, so its name and its arguments do not"
                " identify the effect; give once(key=…)"
            )

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], digest: str) -> str:
        if self.key is None:
            return f"{self.name}:{digest.removeprefix(_DIGEST_PREFIX)}"
        key = self.key(*args, **kwargs) if callable(self.key) else self.key
        if not isinstance(key, str):
            raise InvalidRequestError(f"the key of {self.name} must be a string, not a {type(key).__name__}")
        return key

    def _digest(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        given = self.arguments(*args, **kwargs) if self.arguments else self._bound(args, kwargs)
        try:
            return cast(str, arguments_digest([given]))
        except ValueSerializationError as error:
            raise InvalidRequestError(
                f"{self._culprit(given)} of {self.name} is not a JSON value, so calls cannot be told apart ({error});"
                " pass JSON values, or give once(arguments=…) a function that makes one of the call's arguments"
            ) from None

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, with defaults."""
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        several = inspect.Parameter.VAR_POSITIONAL
        kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
        return {name: list(value) if kinds[name] is several else value for name, value in bound.arguments.items()}

    def _culprit(self, given: object) -> str:
        if self.arguments is None and isinstance(given, dict):
            for name, value in given.items():
                try:
                    encode_value(value)
                except ValueSerializationError:
                    return f"the argument {name!r}"
        return "what arguments= returned for a call"


def run_once(store: KeyValueOperations, request: StepRequest, call: Callable[[], Any]) -> Any:
    """Call a function unless its durable step has ended before, and return the result, which may be a recorded one.

    Raises:
        StepInProgressError: Another caller holds the step.
        EffectUnknownError: The step is unknown, and ``on_unknown`` is None.
        StepConflictError: The step was begun with other arguments.
        StepLostError: Another caller took over meanwhile, so the result was refused.
        StepUnrecordedError: The effect happened, but its result could not be recorded.
    """
    with DurableStep(store, request) as step:
        if step.needed:
            step.finish(call())
        return step.result


async def run_once_async(store: AsyncKeyValueStore, request: StepRequest, call: Callable[[], Any]) -> Any:
    """Do what ``run_once`` does for a coroutine function."""
    async with AsyncDurableStep(store, request) as step:
        if step.needed:
            await step.finish(await call())
        return step.result


def decorate(store: KeyValueOperations, calls: Calls) -> Callable[..., Any]:
    """Return a function whose effect happens at most once for each key.

    Raises:
        InvalidRequestError: It is a generator function, or a coroutine function.
    """
    function = calls.function
    if inspect.iscoroutinefunction(function):
        raise InvalidRequestError(f"{calls.name} is a coroutine function; use once of an AsyncKeyValueStore")
    _check(calls)

    @functools.wraps(function)
    def _once(*args: Any, **kwargs: Any) -> Any:
        return run_once(store, calls.request(args, kwargs), functools.partial(function, *args, **kwargs))

    return _once


def decorate_async(store: AsyncKeyValueStore, calls: Calls) -> Callable[..., Any]:
    """Return a coroutine function whose effect happens at most once for each key.

    Raises:
        InvalidRequestError: It is not a coroutine function.
    """
    function = calls.function
    _check(calls)
    if not inspect.iscoroutinefunction(function):
        raise InvalidRequestError(f"{calls.name} is not a coroutine function; use once of a KeyValueStore")

    @functools.wraps(function)
    async def _once(*args: Any, **kwargs: Any) -> Any:
        return await run_once_async(store, calls.request(args, kwargs), functools.partial(function, *args, **kwargs))

    return _once


def _check(calls: Calls) -> None:
    calls.check_name()
    if inspect.isgeneratorfunction(calls.function) or inspect.isasyncgenfunction(calls.function):
        raise InvalidRequestError(f"{calls.name} is a generator function, whose result cannot be recorded")
