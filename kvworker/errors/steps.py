"""Errors of durable steps: what is known about an effect, and who may go on with it."""

from __future__ import annotations

from typing import Final

from kvworker.errors.base import KVStoreError
from kvworker.errors.refusals import IdempotencyConflictError, _EntryError

#: Why the outcome of a step is kept without its value, by the reason that ``kv_step_finish`` takes.
_UNRECORDED: Final = {
    "not_json": "it is not a JSON value",
    "too_large": "it is too large for a message",
    "quota": "a quota has no room for it",
}


class StepInProgressError(_EntryError):
    """The durable step is held by another caller, whose lease runs. Nothing was changed.

    ``holder`` says who, and ``lease_seconds`` when the lease would run out without a renewal.
    """

    def __init__(self, namespace: str, key: str, holder: str, lease_seconds: float) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, holder, lease_seconds)
        self.holder = holder
        self.lease_seconds = lease_seconds

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Who holds the step, and for how long."""
        return (
            f"the durable step is in progress, held by {self.holder!r} with a lease of another"
            f" {self.lease_seconds:.1f} s; try again later, or wait with wait_seconds"
        )


class EffectUnknownError(_EntryError):
    """The durable step's lease ran out before its outcome was recorded: its effect may have happened, or not.

    The holder itself gets it too, if the store does not answer when the outcome is to be recorded. Calling again is
    safe: the step is then found done, or unknown.

    Look outside, and settle the step with its ``token``: ``on_unknown`` of ``once`` does that in a program, and
    ``kvworker steps resolve`` by hand.
    """

    def __init__(self, namespace: str, key: str, holder: str, token: int) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, holder, token)
        self.holder = holder
        self.token = token

    @property
    def reason(self) -> str:  # type: ignore[override]
        """What is unknown, and what to do."""
        return (
            f"whether the effect happened is unknown: {self.holder!r} reserved the durable step and recorded no"
            " outcome; look whether it happened, and settle the step with on_unknown or `kvworker steps resolve`"
        )


class StepLostError(_EntryError):
    """The caller no longer holds the durable step with this token, so that its late outcome is refused.

    Its lease ran out and somebody else took over, settled or removed the step.
    """

    def __init__(self, namespace: str, key: str, token: int) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, token)
        self.token = token

    @property
    def reason(self) -> str:  # type: ignore[override]
        """What was lost."""
        return (
            f"the durable step is no longer held with token {self.token}: it was taken over, settled or removed, so"
            " this outcome is not recorded"
        )


class StepConflictError(_EntryError, IdempotencyConflictError):
    """The durable step was begun with other arguments."""

    reason = (
        "the durable step was begun with other arguments; use another key for another effect, and in a run perform the"
        " same steps with the same arguments in the same order"
    )


class StepUnrecordedError(KVStoreError):
    """The durable step has ended, but its result or error could not be recorded. Its effect is not repeated.

    ``state`` is ``done`` or ``failed``. ``why`` is ``not_json``, ``too_large`` or ``quota``.
    """

    def __init__(self, namespace: str, key: str, state: str, why: str) -> None:
        super().__init__(namespace, key, state, why)
        self.namespace = namespace
        self.key = key
        self.state = state
        self.why = why

    def __str__(self) -> str:
        what = "result" if self.state == "done" else "error"
        return (
            f"the durable step is {self.state}, so it is not repeated, but its {what} was not recorded:"
            f" {_UNRECORDED.get(self.why, self.why)} (namespace {self.namespace!r}, key {self.key!r})"
        )


class StepFailedError(KVStoreError):
    """The durable step failed with an error that was recorded, and whose class this program does not declare.

    ``error_type`` is the class's full name, and ``message`` the error's text. Nothing else shows the text, which may
    hold values; a copy of this error in another process lacks it.
    """

    __slots__ = ("message",)

    def __init__(self, namespace: str, key: str, error_type: str, message: str = "") -> None:
        super().__init__(namespace, key, error_type)
        self.namespace = namespace
        self.key = key
        self.error_type = error_type
        self.message = message

    def __str__(self) -> str:
        return (
            f"the durable step failed with {self.error_type}, which was recorded; `message` has its text"
            f" (namespace {self.namespace!r}, key {self.key!r})"
        )
