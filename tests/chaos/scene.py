"""What a fault has at hand, and what a scenario is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias, TypeVar

from kvworker import KeyValueStore
from tests.chaos.history import Call
from tests.chaos.load import Load, Pace
from tests.chaos.stand import Needs, Stand
from tests.support.processes import WorkerNode

_Choice = TypeVar("_Choice")


@dataclass
class Scene:
    """A stand under load; ``notes`` is what a fault keeps for the next one, ``figures`` what it has measured."""

    stand: Stand
    stores: Sequence[KeyValueStore]
    load: Load
    chance: Random
    notes: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def pause(self, least_seconds: float, most_seconds: float) -> None:
        """Let the fault last for a while."""
        time.sleep(self.chance.uniform(least_seconds, most_seconds))

    def number(self) -> int:
        """How many faults asked before."""
        self.notes["number"] = int(self.notes.get("number", -1)) + 1
        return int(self.notes["number"])

    def following(self, choices: Sequence[_Choice]) -> _Choice:
        """Each in its turn, from any of them on."""
        first: int = self.notes.setdefault("first", self.chance.randrange(len(choices)))
        return choices[(first + self.number()) % len(choices)]

    def next_worker(self) -> WorkerNode:
        """Each worker in its turn."""
        return self.following(self.stand.workers)


#: What a scenario expects beyond what always holds; gives violations in words.
Expectation: TypeAlias = Callable[[Scene, Sequence[Call]], Iterator[str]]


@dataclass(frozen=True)
class Scenario:
    """A fault that is injected again and again under load. It raises AssertionError if it did not come about."""

    name: str
    what: str
    fault: Callable[[Scene], None]
    needs: Needs = field(default_factory=Needs)
    expects: tuple[Expectation, ...] = ()
    pause_seconds: tuple[float, float] = (0.2, 0.8)
    pace: Pace = field(default_factory=Pace)
    callers: int = 5
    stores: int = 2
    #: How many groups of three namespaces there are.
    worlds: int = 1
    #: How often an observer looks at the database.
    look_seconds: float = 0.1
    #: How long it is to run, where the command line does not say so.
    seconds: float = 20.0
    #: Whether it is part of ``make test``.
    is_brief: bool = True
