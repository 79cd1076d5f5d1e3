"""Steps that reserve, renew and finish a durable step: the record of an effect outside the store.

At most one caller holds a durable step at a time. Each of the three compares the token, so a caller that was thought
dead cannot change what its successor recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from kvworker.errors import InvalidRequestError, StepConflictError, StepLostError, ValueSerializationError
from kvworker.model.computed_steps import Change, ComputedStep, StepMoment, StoredEntry
from kvworker.model.durable_results import StepBeginResult, StepFinishResult, StepRenewResult
from kvworker.model.identifiers import check_holder
from kvworker.model.quoting import shown_argument
from kvworker.model.steps import Step
from kvworker.model.stored_steps import DEFAULT_LEASE_SECONDS, StoredStep, arguments_digest, check_lease
from kvworker.model.validation import check_integer
from kvworker.model.values import MAX_VALUE_DEPTH, DecodedValue, EncodedValue, JSONValue, depth_of

FINISHED_STATES: Final = ("done", "failed", "released", "unknown")
UNRECORDED: Final = ("not_json", "too_large", "quota")
#: The operation records that a reserved step holds in reserve: one for its end, and one for its deletion.
_RESERVED_RECORDS: Final = 2


@dataclass(frozen=True, slots=True)
class StepBegin(ComputedStep):
    """Reserves a durable step, unless it is held or has ended.

    ``takeover_token`` is the token of an unknown step that the caller takes over. ``arguments`` is any JSON value or
    the digest of one; the attribute is always the digest.
    """

    holder: str = ""
    arguments: JSONValue = None
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    takeover_token: int | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if self.holder:
            check_holder(self.holder)
        object.__setattr__(self, "arguments", arguments_digest(self.arguments))
        object.__setattr__(self, "lease_seconds", check_lease(self.lease_seconds))
        if self.takeover_token is not None:
            check_step_token("takeover_token", self.takeover_token)

    @property
    def request(self) -> list[JSONValue]:
        """The holder, the arguments' digest, the lease and the token to take over."""
        return [self.holder, self.arguments, self.lease_seconds, self.takeover_token]

    def reserved_records(self, present: int, *, is_written: bool) -> int:
        """Reserve a record for the end of the step: it must not be refused once the effect has happened."""
        return max(_RESERVED_RECORDS, present) if is_written else present

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Reserve the step, or answer what is known about it.

        Raises:
            InvalidValueTypeError: The entry is not a durable step.
            StepConflictError: The step was begun with other arguments.
        """
        if entry is None:
            return self._reserve(moment, self.arguments)
        found = StoredStep.of_text(entry.text, moment.namespace, self.key)
        if None not in (self.arguments, found.arguments) and self.arguments != found.arguments:
            raise StepConflictError(moment.namespace, self.key)
        state = found.state_at(moment.now)
        if state == "unknown" and found.token == self.takeover_token:
            # The entry of an import has a new version, by the clock of this database, which may be behind.
            return self._reserve(moment, found.arguments or self.arguments, after_token=found.token)
        return Change(_begin_answer(state, found))

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> StepBeginResult:
        """Make the result. A lease that ran out since the operation was applied makes the step unknown."""
        name, state, lease_until = (moment.namespace, self.key), answer["state"], answer.get("lease_until")
        if lease_until is None:
            outcome = {field: answer[field] for field in ("value", "unrecorded") if field in answer}
            return StepBeginResult(*name, state, answer["token"], **outcome, replayed=replayed)
        step = StoredStep("reserved", answer["token"], holder=answer["holder"], lease_until=lease_until)
        if replayed and step.is_over(moment.now):
            state = "unknown"
        remaining = step.remaining_seconds(moment.now)
        return StepBeginResult(*name, state, step.token, step.holder, remaining, replayed=replayed)

    def record_of(self, outcome: str) -> str:
        """Keep no value in the record, whose size no quota counts."""
        answer = json.loads(outcome)
        if "value" not in answer:
            return outcome
        del answer["value"]
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))

    def _reserve(self, moment: StepMoment, arguments: JSONValue, after_token: int = 0) -> Change:
        token, lease_until = max(moment.version, after_token + 1), moment.now + self.lease_seconds
        step = StoredStep.reserved(token, self.holder, arguments, lease_until)  # type: ignore[arg-type]
        return Change(_begin_answer("reserved", step), step.text)


def _begin_answer(state: str, step: StoredStep) -> dict[str, DecodedValue]:
    answer: dict[str, DecodedValue] = {"state": state, "token": step.token}
    if step.state == "reserved":
        return answer | {"holder": step.holder, "lease_until": step.lease_until}
    if step.unrecorded is not None:
        return answer | {"unrecorded": step.unrecorded}
    return answer | {"value": step.value}


@dataclass(frozen=True, slots=True)
class StepRenew(ComputedStep):
    """Makes the lease of a durable step last ``lease_seconds`` from now.

    The holder may do so even after the lease ran out, as long as nobody took the step over: whoever was told that the
    step is unknown must take it over before they act, and then loses.
    """

    token: int = 0
    lease_seconds: float = DEFAULT_LEASE_SECONDS

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        check_step_token("token", self.token)
        object.__setattr__(self, "lease_seconds", check_lease(self.lease_seconds))

    @property
    def request(self) -> list[JSONValue]:
        """The token and the lease."""
        return [self.token, self.lease_seconds]

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Renew the lease.

        Raises:
            InvalidValueTypeError: The entry is not a durable step.
            StepLostError: The caller does not hold the step.
        """
        step = _held(entry, moment, self.key, self.token)
        renewed = step.renewed(moment.now + self.lease_seconds)
        return Change(renewed.lease_until, renewed.text)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> StepRenewResult:
        """Make the result."""
        step = StoredStep("reserved", self.token, lease_until=answer)
        return StepRenewResult(
            moment.namespace, self.key, self.token, step.remaining_seconds(moment.now), replayed=replayed
        )


@dataclass(frozen=True, slots=True)
class StepFinish(ComputedStep):
    """Records how a durable step ended. The outcome is kept for ``ttl_seconds``, or until it is deleted.

    ``released`` removes the step, so that it may run again. ``unknown`` ends its lease at once: the holder does not
    know either. The holder may finish a step whose lease ran out, as long as nobody took it over, since it turns the
    unknown into the known.
    """

    inherited_options: ClassVar[tuple[str, ...]] = ("value", "ttl_seconds")

    token: int = 0
    state: str = ""
    unrecorded: str | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        check_step_token("token", self.token)
        encoded = EncodedValue.of(self.value)
        _check_depth(encoded)
        object.__setattr__(self, "value", encoded.value)
        object.__setattr__(self, "text", encoded.text)
        if check_finished_state(self.state) in {"released", "unknown"} and self._has_outcome():
            raise InvalidRequestError(f"a step that is {self.state} takes no value, unrecorded or ttl_seconds")
        if check_unrecorded(self.unrecorded) is not None and self.value is not None:
            raise InvalidRequestError("value and unrecorded contradict each other; give only one of them")

    @property
    def request(self) -> list[JSONValue]:
        """The token and the outcome."""
        return [self.token, self.state, self.text, self.unrecorded]

    def reserved_records(self, present: int, *, is_written: bool) -> int:
        """Use a record that the step holds in reserve."""
        return max(1, present - 1) if is_written else present

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Record the outcome. The same outcome once more changes nothing.

        Raises:
            InvalidValueTypeError: The entry is not a durable step.
            StepLostError: The caller does not hold the step, or has given it another outcome.
        """
        if self._is_recorded(entry, moment) if entry else self.state == "released":
            return Change(None)
        step = _held(entry, moment, self.key, self.token)
        if self.state == "released":
            return Change(None, removes=True)
        if self.state == "unknown":
            return Change(None) if step.is_over(moment.now) else Change(None, step.renewed(moment.now).text)
        expires_at = None if self.ttl_seconds is None else moment.now + self.ttl_seconds
        return Change(None, self._ended_text(step.arguments), expires_at)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> StepFinishResult:  # noqa: ARG002
        """Make the result."""
        return StepFinishResult(moment.namespace, self.key, self.token, self.state, replayed=replayed)

    def _has_outcome(self) -> bool:
        return not (self.value is None and self.unrecorded is None and self.ttl_seconds is None)

    def _ended_text(self, arguments: str | None) -> str:
        state: Any = self.state
        step = StoredStep(state, self.token, arguments, unrecorded=self.unrecorded)
        return step.text if self.unrecorded else step.text_with(self.text)

    def _is_recorded(self, entry: StoredEntry, moment: StepMoment) -> bool:
        step = StoredStep.of_text(entry.text, moment.namespace, self.key)
        return step.state != "reserved" and entry.text == self._ended_text(step.arguments)


def _held(entry: StoredEntry | None, moment: StepMoment, key: str, token: int) -> StoredStep:
    if entry is None:
        raise StepLostError(moment.namespace, key, token)
    step = StoredStep.of_text(entry.text, moment.namespace, key)
    if step.state != "reserved" or step.token != token:
        raise StepLostError(moment.namespace, key, token)
    return step


def _check_depth(encoded: EncodedValue) -> None:
    """Check that the value fits into the object of a step, which is one level of its entry's value."""
    text, deepest = encoded.text, MAX_VALUE_DEPTH - 1
    if text.count("[") + text.count("{") > deepest and depth_of(encoded.value, deepest) > deepest:
        raise ValueSerializationError(f"the value of a durable step is nested deeper than {deepest} levels")


def check_step_token(name: str, token: object) -> int:
    """Return a fencing token.

    Raises:
        InvalidRequestError: It is not an integer of at least 1.
    """
    number = check_integer(name, token)
    if number < 1:
        raise InvalidRequestError(f"{name} must be a token from an earlier result, not {shown_argument(token)}")
    return number


def check_finished_state(state: object) -> str:
    """Return the state that a step ends with.

    Raises:
        InvalidRequestError: It is not one of ``FINISHED_STATES``.
    """
    if state not in FINISHED_STATES or not isinstance(state, str):
        raise InvalidRequestError(f"state must be one of {', '.join(FINISHED_STATES)}, not {shown_argument(state)}")
    return state


def check_unrecorded(unrecorded: object) -> str | None:
    """Return the reason why an outcome has no value. None means that it has one.

    Raises:
        InvalidRequestError: It is not one of ``UNRECORDED``.
    """
    if unrecorded is None or (isinstance(unrecorded, str) and unrecorded in UNRECORDED):
        return unrecorded
    raise InvalidRequestError(f"unrecorded must be one of {', '.join(UNRECORDED)}, not {shown_argument(unrecorded)}")
