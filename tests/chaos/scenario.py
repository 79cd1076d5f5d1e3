"""A scenario: a fault, the load that it disturbs, and the context that the fault runs in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias, TypeVar

from kvworker import KeyValueStore
from tests.chaos.cluster import Cluster
from tests.chaos.history import Call
from tests.chaos.load import Load, Pace
from tests.chaos.needs import Needs
from tests.support.processes import WorkerNode

_Choice = TypeVar("_Choice")


@dataclass
class ClusterContext:
    """A cluster under any load.

    A fault keeps data for its next run in ``memory``, and measurements for the report in ``figures``.
    """

    cluster: Cluster
    rng: Random
    memory: dict[str, Any] = field(default_factory=dict, kw_only=True)
    figures: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def pause(self, least_seconds: float, most_seconds: float) -> None:
        """Sleep for a random time between the bounds."""
        time.sleep(self.rng.uniform(least_seconds, most_seconds))

    def next_number(self) -> int:
        """Count up from 0."""
        self.memory["number"] = int(self.memory.get("number", -1)) + 1
        return int(self.memory["number"])

    def next_of(self, choices: Sequence[_Choice]) -> _Choice:
        """Give each choice in turn, starting with a random one."""
        first: int = self.memory.setdefault("first", self.rng.randrange(len(choices)))
        return choices[(first + self.next_number()) % len(choices)]

    def next_worker(self) -> WorkerNode:
        """Give each worker in turn."""
        return self.next_of(self.cluster.workers)


@dataclass
class FaultContext(ClusterContext):
    """A cluster under the load of operations."""

    stores: Sequence[KeyValueStore]
    load: Load


#: A check that only some scenarios need. It describes violations in words.
Expectation: TypeAlias = Callable[[FaultContext, Sequence[Call]], Iterator[str]]


@dataclass(frozen=True)
class Scenario:
    """A fault that is injected again and again under load. It raises AssertionError if it had no effect."""

    name: str
    description: str
    fault: Callable[[FaultContext], None]
    needs: Needs = field(default_factory=Needs)
    expects: tuple[Expectation, ...] = ()
    #: The faults go on, for a bounded time, until these find nothing wrong: a busy machine needs longer.
    until: tuple[Expectation, ...] = ()
    pause_seconds: tuple[float, float] = (0.2, 0.8)
    pace: Pace = field(default_factory=Pace)
    callers: int = 5
    stores: int = 2
    #: The number of namespace groups.
    groups: int = 1
    #: The interval at which an observer reads the database.
    observe_seconds: float = 0.1
    #: The duration of the faults, unless the command line gives one.
    seconds: float = 20.0
    #: True if the scenario is part of ``make test``.
    is_brief: bool = True
