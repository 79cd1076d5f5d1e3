"""Steps: checked operations on one key, alone or in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypeAlias

from kvworker.errors import InvalidRequestError
from kvworker.model.identifiers import check_key
from kvworker.model.validation import (
    MAX_BATCH_STEPS,
    check_flag,
    check_integer,
    check_touch_ttl,
    check_ttl,
    check_version,
)
from kvworker.model.values import EncodedValue, JSONValue, encode_value

Action: TypeAlias = Literal[
    "get",
    "set",
    "delete",
    "increment",
    "touch",
    "persist",
    "acquire_permit",
    "renew_permit",
    "release_permit",
    "rate_limit",
    "append",
    "merge",
    "get_and_delete",
    "step_begin",
    "step_renew",
    "step_finish",
]


#: The options of each action that is not computed.
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "get": (),
    "set": ("value", "ttl_seconds", "expected_version", "if_absent", "keep_ttl"),
    "delete": ("expected_version",),
    "increment": ("delta", "initial_value", "ttl_seconds"),
    "touch": ("ttl_seconds", "expected_version"),
    "persist": ("expected_version",),
}


@dataclass(frozen=True, slots=True)
class Step:
    """An operation on one key, with the arguments of the adapter method of the same name.

    ``value`` may be given as an ``EncodedValue``, which is not encoded again. The attribute is always the plain value.

    Raises:
        InvalidRequestError: An argument is wrong; see the adapter's methods.
    """

    action: Action
    key: str
    value: JSONValue = None
    ttl_seconds: float | None = None
    delta: int = 1
    initial_value: int = 0
    expected_version: int | None = None
    if_absent: bool = False
    keep_ttl: bool = False
    #: The value to store as canonical JSON text. For an increment, the value of a missing counter afterwards.
    text: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._refuse_foreign_options()
        object.__setattr__(self, "key", check_key(self.key))
        object.__setattr__(self, "ttl_seconds", check_ttl(self.ttl_seconds))
        check_version(self.expected_version)
        check_flag("if_absent", self.if_absent)
        check_flag("keep_ttl", self.keep_ttl)
        if self.action == "set":
            self._refuse_contradictions()
            value: object = self.value
            if isinstance(value, EncodedValue):
                object.__setattr__(self, "value", value.value)
                object.__setattr__(self, "text", value.text)
            else:
                object.__setattr__(self, "text", encode_value(value))
        elif self.action == "increment":
            first = check_integer("initial_value", self.initial_value) + check_integer("delta", self.delta)
            object.__setattr__(self, "text", str(first))
        elif self.action == "touch":
            check_touch_ttl(self.ttl_seconds)

    @property
    def is_conditional(self) -> bool:
        """True if the step depends on the entry's version, absence or expiry."""
        return self.expected_version is not None or self.if_absent or self.keep_ttl

    @property
    def makes_version(self) -> bool:
        """True if the entry may have a new version afterwards."""
        return self.action in {"set", "increment"}

    @property
    def reads_value(self) -> bool:
        """True if the step depends on the entry's present value."""
        return self.action in {"get", "increment"}

    def _refuse_foreign_options(self) -> None:
        options = self._option_names()
        for name, default in _DEFAULTS:
            if name not in options and getattr(self, name) != default:
                raise InvalidRequestError(f"{self.action} takes no {name}")

    def _option_names(self) -> tuple[str, ...]:
        """Return the names of the options that the action takes."""
        options = _OPTIONS.get(self.action)
        if options is None:
            raise InvalidRequestError(f"a step's action must be one of {', '.join(_OPTIONS)}, not {self.action!r}")
        return options

    def _refuse_contradictions(self) -> None:
        if self.if_absent and self.expected_version is not None:
            raise InvalidRequestError("if_absent and expected_version contradict each other; give only one of them")
        if self.keep_ttl and self.ttl_seconds is not None:
            raise InvalidRequestError("keep_ttl and ttl_seconds contradict each other; give only one of them")


@dataclass(frozen=True, slots=True)
class Operation:
    """A step outside a batch. A write without an operation id gets a fresh one."""

    namespace: str
    step: Step
    operation_id: str | None = None


#: The name and the default of each option.
_DEFAULTS: Final = tuple((option.name, option.default) for option in fields(Step)[2:] if option.init)


def check_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps of a batch.

    Raises:
        InvalidRequestError: The argument is not a list of steps, or has none or more than ``MAX_BATCH_STEPS``.
    """
    if not isinstance(steps, list | tuple) or not all(isinstance(step, Step) for step in steps):
        raise InvalidRequestError("the steps of a batch must be a list of Step")
    if not 1 <= len(steps) <= MAX_BATCH_STEPS:
        raise InvalidRequestError(f"a batch has 1 to {MAX_BATCH_STEPS} operations, not {len(steps)}")
    return tuple(steps)
