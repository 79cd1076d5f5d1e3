"""Durable steps as entries: what their values hold, and what is known about them at a moment.

The value is an object with the marker ``$step``. A reserved step has no expiry, since to forget it would be to forget
an effect that may have happened. ``unknown`` is never stored: it is a reserved step whose lease ran out, by the
database's clock. The token is the version of the write that reserved the step. It grows with every holder, also after
expiry and deletion, and renewals leave it as it is.

The text of an ended step without its value is never longer than that of the reserved step. So the end of an effect can
be recorded even where a quota is full.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypeAlias

from kvworker.errors import InvalidRequestError, InvalidValueTypeError
from kvworker.model.durable_results import StepStatusResult
from kvworker.model.quoting import shown_argument
from kvworker.model.results import GetResult
from kvworker.model.validation import is_stored_integer
from kvworker.model.values import DecodedValue, decode_value, encode_value

DEFAULT_LEASE_SECONDS: Final = 60
#: A longer lease would hide for longer that its holder died. A heartbeat renews shorter ones.
MAX_LEASE_SECONDS: Final = 86_400
#: The name by which an entry's value is known to be a durable step.
MARKER: Final = "$step"
_FORMAT: Final = 1
_MICROSECONDS: Final = 1_000_000
_DIGEST_PREFIX: Final = "sha256:"
_DIGEST_LENGTH: Final = len(_DIGEST_PREFIX) + 32

_FIELDS: Final = frozenset({"state", "token", "arguments", "holder", "lease_until"})

#: The states of a stored step.
StoredState: TypeAlias = Literal["reserved", "done", "failed"]


@dataclass(frozen=True, slots=True, repr=False)
class StoredStep:
    """A durable step as its entry's value holds it. ``lease_until`` is in microseconds since 1970.

    ``arguments`` is a digest, or None if the step was begun without arguments. ``value`` is the recorded result or
    error, and ``unrecorded`` the reason why there is none.
    """

    state: StoredState
    token: int
    arguments: str | None = None
    holder: str = ""
    lease_until: int = 0
    value: DecodedValue = None
    unrecorded: str | None = None

    @classmethod
    def reserved(cls, token: int, holder: str, arguments: str | None, lease_until: float) -> Self:
        """Return a step that a holder has reserved until an instant in seconds since 1970."""
        return cls("reserved", token, arguments, holder, int(lease_until * _MICROSECONDS))

    @classmethod
    def of_value(cls, value: DecodedValue) -> Self | None:
        """Return the step that an entry's value holds, or None if it is not the value of a step."""
        if not isinstance(value, dict) or value.get(MARKER) != _FORMAT or isinstance(value[MARKER], bool):
            return None
        fields: dict[str, Any] = {}
        fields.update((name, field) for name, field in value.items() if name in _FIELDS)
        if not _is_step(fields):
            return None
        unrecorded = value.get("unrecorded")
        return cls(**fields, value=value.get("value"), unrecorded=unrecorded if isinstance(unrecorded, str) else None)

    @classmethod
    def of_text(cls, text: str, namespace: str, key: str) -> Self:
        """Return the step that an entry's text holds.

        Raises:
            InvalidValueTypeError: The entry is not a durable step.
        """
        step = cls.of_value(decode_value(text)) if MARKER in text else None
        if step is None:
            raise InvalidValueTypeError(namespace, key, "a durable step")
        return step

    @property
    def text(self) -> str:
        """The entry's value as canonical JSON text, without the step's own value."""
        data: dict[str, object] = {MARKER: _FORMAT, "state": self.state, "token": self.token}
        if self.arguments is not None:
            data["arguments"] = self.arguments
        if self.state == "reserved":
            data |= {"holder": self.holder, "lease_until": self.lease_until}
        elif self.unrecorded is not None:
            data["unrecorded"] = self.unrecorded
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    def text_with(self, value_text: str) -> str:
        """Return the same with the step's value, which is given as JSON text."""
        return f'{self.text[:-1]},"value":{value_text}}}'

    def is_over(self, now: float) -> bool:
        """Return whether the lease has run out; ``now`` is in seconds since 1970."""
        return self.lease_until <= now * _MICROSECONDS

    def state_at(self, now: float) -> str:
        """Return the state that an observer sees: ``in_progress``, ``unknown``, ``done`` or ``failed``."""
        if self.state != "reserved":
            return self.state
        return "unknown" if self.is_over(now) else "in_progress"

    def renewed(self, lease_until: float) -> Self:
        """Return the step with a lease until an instant in seconds since 1970."""
        return replace(self, lease_until=int(lease_until * _MICROSECONDS))

    def remaining_seconds(self, now: float) -> float:
        """Return the rest of the lease, at least 0."""
        return max(0.0, self.lease_until / _MICROSECONDS - now)


def _is_step(fields: dict[str, Any]) -> bool:
    """Return whether the fields can be those of a step: anybody may write a value with the marker."""
    return (
        fields.get("state") in ("reserved", "done", "failed")
        and is_stored_integer(fields.get("token"), 1)
        and is_stored_integer(fields.get("lease_until", 0), 0)
        and isinstance(fields.get("holder", ""), str)
        and isinstance(fields.get("arguments", ""), str)
    )


def status_of(found: GetResult, now: float) -> StepStatusResult:
    """Return what is known about a durable step.

    Args:
        found: Its entry, read after the clock.
        now: The database's clock in seconds since 1970.

    Raises:
        InvalidValueTypeError: The entry is not a durable step.
    """
    name = found.namespace, found.key
    if not found.found:
        return StepStatusResult(*name, "absent")
    step = StoredStep.of_value(found.value)
    if step is None:
        raise InvalidValueTypeError(*name, "a durable step")
    if step.state != "reserved":
        return StepStatusResult(
            *name, step.state, step.token, value=step.value, unrecorded=step.unrecorded, ttl_seconds=found.ttl_seconds
        )
    return StepStatusResult(*name, step.state_at(now), step.token, step.holder, step.remaining_seconds(now))


def arguments_digest(arguments: object) -> str | None:
    """Return the digest of a step's arguments, by which calls with one key are told apart. A digest is kept as it is.

    Args:
        arguments: Any JSON value; the order of an object's keys does not matter. None means that no arguments are
            compared.

    Raises:
        ValueSerializationError: It is not a JSON value.
    """
    if arguments is None or _is_digest(arguments):
        return arguments  # type: ignore[return-value]
    encode_value(arguments)
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return _DIGEST_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_digest(arguments: object) -> bool:
    if not isinstance(arguments, str) or len(arguments) != _DIGEST_LENGTH or not arguments.startswith(_DIGEST_PREFIX):
        return False
    return set(arguments[len(_DIGEST_PREFIX) :]) <= set("0123456789abcdef")


def check_lease(lease_seconds: object) -> float:
    """Return the length of a lease in seconds.

    Raises:
        InvalidRequestError: It is not a number above 0 and at most ``MAX_LEASE_SECONDS``.
    """
    if isinstance(lease_seconds, bool) or not isinstance(lease_seconds, int | float):
        raise InvalidRequestError(f"lease_seconds must be a number above 0, not {shown_argument(lease_seconds)}")
    if not 0 < lease_seconds <= MAX_LEASE_SECONDS:
        raise InvalidRequestError(
            f"lease_seconds must be above 0 and at most {MAX_LEASE_SECONDS}, not {shown_argument(lease_seconds)}"
        )
    return float(lease_seconds)
