"""Keeps a thread's TTL: it expires as a whole, some time after the last checkpoint was put.

Entries expire one by one, but a checkpoint needs values that were stored long before. So the thread is visible only as
long as its life entry exists, which every put sets to the TTL, and all other entries live half a TTL longer. Whenever
half a TTL has passed, a put first renews all entries of the thread.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final

from kvworker.integrations.entries import Step, apply_each, list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.names import LIFE_KEY, RENEWAL_KEY
from kvworker.integrations.langgraph.checkpoints.recent import Recent
from kvworker.integrations.rounds import Rounds
from kvworker.model import MAX_TTL_SECONDS, GetResult, check_ttl

_REMEMBERED: Final = 10_000
_RENEWED_EVERY: Final = 0.5


class ThreadExpiredError(Exception):
    """The thread that a run continues has expired or was deleted."""


class Lifetime:
    """The TTL of a checkpointer's threads.

    Raises:
        InvalidTTLError: The TTL is not a finite number of seconds above 0.
    """

    def __init__(self, ttl_seconds: float | None) -> None:
        ttl = check_ttl(ttl_seconds)
        self._ttl = None if ttl is None else min(ttl, MAX_TTL_SECONDS / 2)
        #: Until when, by this process's clock, no renewal of a namespace is due.
        self._current: Recent[str, float] = Recent(_REMEMBERED)

    @property
    def of_thread(self) -> dict[str, Any]:
        """The option of a write that sets the TTL of the thread."""
        return {} if self._ttl is None else {"ttl_seconds": self._ttl}

    @property
    def of_entries(self) -> dict[str, Any]:
        """The option of a write that sets the TTL of any other entry."""
        return {} if self._ttl is None else {"ttl_seconds": self._ttl * (1 + _RENEWED_EVERY)}

    def note_life(self, namespace: str, life: GetResult | None, *, has_leftovers: bool) -> None:
        """Note what a read saw, so that the next put checks a thread that has another TTL or has expired."""
        other_ttl = life is not None and self._ttl is None and life.ttl_seconds is not None
        if other_ttl or (life is None and has_leftovers):
            self._current.set(namespace, -math.inf)

    def prepare(self, namespace: str, *, is_continued: bool) -> Rounds[list[Step]]:
        """Give all entries of the thread their TTL, if that is due, before a put.

        Returns:
            The steps that the put must apply as well.

        Raises:
            ThreadExpiredError: The put continues a thread that does not exist.
        """
        if not self._is_due(namespace):
            return []
        now = time.monotonic()
        found = yield from read_entries(namespace, [LIFE_KEY, RENEWAL_KEY])
        if LIFE_KEY not in found:
            if is_continued:
                raise ThreadExpiredError
            yield from _delete_leftovers(namespace)
        elif (renewal := found.get(RENEWAL_KEY)) and self._suffices(renewal):
            self._current.set(namespace, now + (renewal.ttl_seconds or 0))
            return []
        else:
            yield from self._renew(namespace)
        return self._renewed(namespace, now)

    def _is_due(self, namespace: str) -> bool:
        until = self._current.get(namespace)
        if until is None:
            # Without a TTL, only a read can tell that there is something to do.
            return self._ttl is not None
        return time.monotonic() >= until

    def _suffices(self, renewal: GetResult) -> bool:
        # Another checkpointer may have a shorter TTL.
        return self._ttl is not None and isinstance(renewal.value, int | float) and renewal.value >= self._ttl

    def _renew(self, namespace: str) -> Rounds[None]:
        keys = [entry.key for entry in (yield from list_entries(namespace)) if entry.key not in (LIFE_KEY, RENEWAL_KEY)]
        tool = "kv_persist" if self._ttl is None else "kv_touch"
        yield from apply_each(namespace, [{"tool": tool, "key": key, **self.of_entries} for key in keys])

    def _renewed(self, namespace: str, now: float) -> list[Step]:
        if self._ttl is None:
            self._current.forget(namespace)
            return []
        pause = self._ttl * _RENEWED_EVERY
        self._current.set(namespace, now + pause)
        return [{"tool": "kv_set", "key": RENEWAL_KEY, "value": self._ttl, "ttl_seconds": pause}]


def _delete_leftovers(namespace: str) -> Rounds[None]:
    """Delete the entries of a thread that has expired, but nothing of a run that begins it again meanwhile."""
    entries = yield from list_entries(namespace)
    # All listed entries are older than this read. Without a life entry, they belong to the expired thread.
    if not entries or LIFE_KEY in (yield from read_entries(namespace, [LIFE_KEY])):
        return
    yield from apply_each(
        namespace,
        [{"tool": "kv_delete", "key": entry.key, "expected_version": entry.version} for entry in entries],
    )
