"""The requests of the load: an operation that can be sent, and the state of the caller that sends it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kvworker import KeyValueStore
from tests.chaos.history import Answer, Call, Step

_REMEMBERED_KEYS = 50
_CLAIMS_EACH = 3


@dataclass(frozen=True)
class Response:
    """The answers of a write or a read, one for each step."""

    answers: tuple[Answer, ...]
    is_replay: bool = False


@dataclass(frozen=True)
class Request:
    """An operation that can be sent again with the same id; reads have no id.

    ``send`` takes the timeout in seconds. ``on_success`` gets the successful call.
    """

    kind: str
    namespace: str
    steps: tuple[Step, ...]
    send: Callable[[float], Response]
    operation_id: str = ""
    on_success: Callable[[Call], None] = lambda _: None


class NamespaceGroup:
    """Three namespaces that several callers share: one for most operations, one for twins, one with a small quota."""

    def __init__(self, prefix: str) -> None:
        self.main, self.twins, self.crowd = f"{prefix}.main", f"{prefix}.twins", f"{prefix}.crowd"
        self._claims = itertools.count()

    def claim(self) -> str:
        """Give a key that a few callers compete for."""
        return f"claim-{next(self._claims) // _CLAIMS_EACH}"


@dataclass
class CallerState:
    """A caller's knowledge of one namespace group."""

    caller: str
    store: KeyValueStore
    group: NamespaceGroup
    rng: Random
    numbers: Iterator[int]
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_KEYS))
    removed: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_KEYS))
    expiring: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_KEYS))
    seen: Answer = field(default_factory=Answer)

    def new_id(self, kind: str) -> str:
        """Make an operation id that no other caller uses."""
        return f"{self.caller}-{next(self.numbers)}-{kind}"

    def value(self, operation_id: str) -> dict[str, Any]:
        """Make a value that no other operation writes."""
        return {"by": operation_id, "pad": "é" * self.rng.randrange(40)}

    @property
    def own_register(self) -> str:
        """A key that only this caller writes, again and again."""
        return f"of-{self.caller}"


def send_timed(request: Request, timeout: float) -> tuple[Response | None, Exception | None, float, float]:
    """Send a request once.

    Returns:
        The response or the error, the time at which the call began (monotonic), and how long it took in seconds.
    """
    began = time.monotonic()
    try:
        response, error = request.send(timeout), None
    except Exception as caught:  # noqa: BLE001 - the history records every error
        response, error = None, caught
    return response, error, began, time.monotonic() - began
