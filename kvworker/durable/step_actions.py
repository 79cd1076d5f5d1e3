"""What the generators of ``kvworker.durable.step_protocol`` yield: calls of the store, waits, and whom to renew."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kvworker.durable.step_options import StepRequest, UnknownStep


@dataclass(frozen=True, slots=True)
class Call:
    """Run a tool of the store. None as the timeout means the configured default."""

    tool: str
    arguments: Mapping[str, Any]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Call a reconcile function."""

    function: Callable[[UnknownStep], Any]
    step: UnknownStep


@dataclass(slots=True, eq=False, weakref_slot=True)
class HeldStep:
    """A step that this process holds.

    ``valid_until`` is when its lease may have run out, by this process's monotonic clock: counted from before the
    message that began or renewed it was sent, so it is never later than the database's.
    """

    request: StepRequest
    token: int
    valid_until: float
    taken_from: UnknownStep | None = None
    lost: threading.Event = field(default_factory=threading.Event)
    process_id: int = field(default_factory=os.getpid)

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child, which does not hold its parent's step."""
        return self.process_id != os.getpid()

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that name the step and its token."""
        namespace, key = self.request.name
        return {"namespace": namespace, "key": key, "token": self.token}

    def renewal(self) -> dict[str, Any]:
        """Return the arguments of a renewal."""
        return {**self.arguments(), "lease_seconds": self.request.options.lease_seconds}

    def renewed(self, sent_at: float) -> None:
        """Note that a renewal that was sent at that moment has succeeded."""
        self.valid_until = max(self.valid_until, sent_at + self.request.options.lease_seconds)


@dataclass(frozen=True, slots=True)
class Hold:
    """Renew the lease of a step from now on."""

    step: HeldStep


@dataclass(frozen=True, slots=True)
class LetGo:
    """Renew the lease of a step no longer."""

    step: HeldStep


@dataclass(frozen=True, slots=True)
class Ended:
    """A step with a recorded outcome."""

    state: str
    value: Any = None
    unrecorded: str | None = None


Action: TypeAlias = Call | Pause | Ask | Hold | LetGo
Steps: TypeAlias = Generator[Action, Any, Any]
