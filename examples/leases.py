"""Agents that share a report, a slow API and its rate limit: a lease, a semaphore and a rate limit.

``python -m examples.leases`` runs them as threads on a store in memory. With a ``KeyValueStore`` they may be processes
on any number of machines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kvworker import InlineKeyValueStore, LeaseHeldError
from kvworker.client.base import KeyValueOperations

AGENTS = [f"agent-{number}" for number in range(6)]
#: What the API allows: two calls at a time, ten at once after a pause, and 20 a second.
CALLS_AT_A_TIME, BURST, CALLS_PER_SECOND = 2, 10, 20


class SlowAPI:
    """An API of somebody else's that counts how it is used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self.most_at_a_time = 0
        self.calls = 0

    def call(self) -> None:
        """Take a moment."""
        with self._lock:
            self._running += 1
            self.calls += 1
            self.most_at_a_time = max(self.most_at_a_time, self._running)
        time.sleep(0.005)
        with self._lock:
            self._running -= 1


def ask(store: KeyValueOperations, api: SlowAPI) -> None:
    """Call the API as soon as its rate limit and its other callers allow."""
    while not (answer := store.rate_limit("limits", "api", CALLS_PER_SECOND, 1.0, burst=BURST)).allowed:
        time.sleep(answer.retry_after_seconds)
    with store.semaphore("limits", "api-calls", CALLS_AT_A_TIME, wait_seconds=60):
        api.call()


def report(store: KeyValueOperations, agent: str) -> bool:
    """Write the report, unless another agent is writing it or has written it. True if this one did."""
    try:
        with store.lease("reports", "writing", ttl_seconds=10) as lease:
            if store.get("reports", "done").found:
                return False
            lease.check()
            store.set("reports", "done", {"by": agent, "token": lease.token})
            return True
    except LeaseHeldError:
        return False


def run(store: KeyValueOperations, calls_each: int = 3) -> tuple[SlowAPI, Sequence[str]]:
    """Let all agents call the API and then write the report. Return the API and those who wrote it."""
    api = SlowAPI()

    def work(agent: str) -> bool:
        for _ in range(calls_each):
            ask(store, api)
        return report(store, agent)

    with ThreadPoolExecutor(len(AGENTS)) as threads:
        wrote = list(threads.map(work, AGENTS))
    return api, [agent for agent, did in zip(AGENTS, wrote, strict=True) if did]


def main() -> None:
    """Run the agents and print what became of it."""
    began = time.monotonic()
    with InlineKeyValueStore() as store:
        api, writers = run(store)
    seconds = time.monotonic() - began
    print(f"{api.calls} calls in {seconds:.2f} s, at most {api.most_at_a_time} at a time; written by {writers}")  # noqa: T201


if __name__ == "__main__":
    main()
