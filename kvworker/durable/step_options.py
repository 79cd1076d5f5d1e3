"""What the callers of durable steps choose, and the answers of a reconcile function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kvworker.client.timeouts import check_timeout
from kvworker.durable.holders import check_wait, new_holder
from kvworker.errors import InvalidRequestError
from kvworker.model import (
    DEFAULT_LEASE_SECONDS,
    JSONValue,
    arguments_digest,
    check_key,
    check_lease,
    check_namespace,
    check_ttl,
)

#: Outcomes are kept for a week: for longer than messages, workflows and people take to come back to an effect.
DEFAULT_RESULT_TTL_SECONDS: Final = 604_800.0


@dataclass(frozen=True, slots=True)
class Done:
    """The answer of a reconcile function that found that the effect happened. Made by ``done``."""

    result: JSONValue = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """The answer of a reconcile function that found that the effect did not happen: it is performed now."""


not_done: Final = NotDone()


def done(result: JSONValue = None) -> Done:
    """Answer that the effect of an unknown step happened.

    Args:
        result: What the step's function would have returned: any JSON value.
    """
    return Done(result)


@dataclass(frozen=True, slots=True)
class UnknownStep:
    """An unknown step, as a reconcile function gets it.

    Attributes:
        namespace: The step's namespace.
        key: The step's key.
        name: The name of the function, or of the step of a run; "" for a block.
        holder: The caller that reserved it and recorded no outcome.
        lost_token: That caller's token.
        token: The token with which the reconciler has taken over.
    """

    namespace: str
    key: str
    name: str
    holder: str
    lost_token: int
    token: int


#: Looks at the outside world, and answers ``done(result)`` or ``not_done``. For an asynchronous store it may be a
#: coroutine function.
Reconcile: TypeAlias = Callable[[UnknownStep], Any]
Exceptions: TypeAlias = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How durable steps behave, checked.

    Raises:
        InvalidRequestError: An option is wrong.
    """

    namespace: str
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    ttl_seconds: float | None = DEFAULT_RESULT_TTL_SECONDS
    wait_seconds: float = 0.0
    on_unknown: Reconcile | Literal["retry"] | None = None
    record: Exceptions = ()
    release: Exceptions = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        check_lease(self.lease_seconds)
        check_ttl(self.ttl_seconds)
        check_timeout(self.timeout, 0.0)
        check_wait(self.wait_seconds)
        if not (self.on_unknown is None or self.on_unknown == "retry" or callable(self.on_unknown)):
            raise InvalidRequestError('on_unknown must be a function, "retry" or None')
        for name in ("record", "release"):
            object.__setattr__(self, name, _check_exceptions(name, getattr(self, name)))

    @property
    def recorded(self) -> tuple[type[Exception], ...]:
        """The classes of errors that end the step as failed."""
        return self.record if isinstance(self.record, tuple) else (self.record,)

    @property
    def released(self) -> tuple[type[Exception], ...]:
        """The classes of errors that say that the effect did not happen."""
        return self.release if isinstance(self.release, tuple) else (self.release,)


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One attempt at a durable step: its key, its arguments' digest, and the name of its holder.

    Raises:
        InvalidRequestError: The key or the arguments are wrong.
    """

    options: StepOptions
    key: str
    arguments: JSONValue = None
    label: str = ""
    holder: str = ""

    def __post_init__(self) -> None:
        check_key(self.key)
        object.__setattr__(self, "arguments", arguments_digest(self.arguments))
        object.__setattr__(self, "holder", new_holder(self.label))

    @property
    def name(self) -> tuple[str, str]:
        """The namespace and the key."""
        return self.options.namespace, self.key


def _check_exceptions(name: str, classes: object) -> tuple[type[Exception], ...]:
    found = classes if isinstance(classes, tuple) else (classes,)
    if not all(isinstance(each, type) and issubclass(each, Exception) for each in found):
        raise InvalidRequestError(f"{name} must be a class of exceptions, or a tuple of them")
    return found
