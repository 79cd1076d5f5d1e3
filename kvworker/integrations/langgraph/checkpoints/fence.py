"""Refuses a checkpoint of a run that another writer of the thread has overtaken.

Each graph of a thread has a head: an entry that names its latest checkpoint. A put replaces it only at the version that
its run has seen. The run learns that version in one of three ways:

- ``get_tuple``, with which every run begins, puts it into the config that it returns, and LangGraph passes that config
  on to the run's first put.
- The put of the run's previous checkpoint made this version.
- Otherwise the head must name the checkpoint that the run continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from langchain_core.runnables import RunnableConfig

from kvworker.errors import OperationRefusedError
from kvworker.integrations.entries import read_entries
from kvworker.integrations.langgraph.checkpoints.names import Place
from kvworker.integrations.langgraph.checkpoints.recent import Recent
from kvworker.integrations.langgraph.checkpoints.records import head_id
from kvworker.integrations.rounds import Rounds
from kvworker.model import GetResult, ListedEntry

#: LangGraph does not copy names with two underscores to a checkpoint's metadata.
_SEEN_HEAD: Final = "__kvworker_head"
#: A config names the latest checkpoint, or a past one from which a run forks.
_LATEST, _PAST = "latest", "past"
_REMEMBERED: Final = 10_000

_Graph: TypeAlias = tuple[str, str]

#: The version of a head that does not exist.
ABSENT: Final = 0


class StaleWriterError(OperationRefusedError):
    """Another run stored a checkpoint of this thread meanwhile, so this run's checkpoint was not stored.

    ``continued_id`` is the checkpoint that the run continues, and ``latest_id`` is the thread's latest one. Each is
    None if there is none.
    """

    def __init__(self, thread_id: str, checkpoint_ns: str, continued_id: str | None, latest_id: str | None) -> None:
        super().__init__(thread_id, checkpoint_ns, continued_id, latest_id)
        self.thread_id = thread_id
        self.checkpoint_ns = checkpoint_ns
        self.continued_id = continued_id
        self.latest_id = latest_id

    def __str__(self) -> str:
        graph = f", graph {self.checkpoint_ns!r}" if self.checkpoint_ns else ""
        began = f"continues checkpoint {self.continued_id}" if self.continued_id else "began without a checkpoint"
        now = (
            f"its latest checkpoint is {self.latest_id} of another writer"
            if self.latest_id
            else "it was deleted or has expired"
        )
        return (
            f"thread {self.thread_id!r}{graph}: this run {began}, but {now}. Nothing of this run's checkpoint was"
            " stored. Run the graph again, and it continues from the thread's latest checkpoint"
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The latest checkpoint of a graph, and the version of the entry that names it."""

    version: int
    checkpoint_id: str | None

    @classmethod
    def of(cls, entry: GetResult | ListedEntry) -> Head:
        """Read a head entry.

        Raises:
            InvalidRequestError: Another program wrote its value.
        """
        return cls(cast(int, entry.version), head_id(entry.value))


@dataclass(frozen=True, slots=True)
class Expected:
    """The condition of a put: the version of the head (None for any), and for a fork that its parent exists."""

    version: int | None
    is_fork: bool = False


class Fence:
    """Remembers the heads that a checkpointer's runs have seen."""

    def __init__(self) -> None:
        #: The version that each put of this checkpointer gave the head, by the checkpoint that it put.
        self._put: Recent[tuple[_Graph, str], int] = Recent(_REMEMBERED)
        #: Graphs without a head when they were last looked for. A run that begins so has no config to pass on.
        self._absent: Recent[_Graph, bool] = Recent(_REMEMBERED)

    def note_absent(self, place: Place) -> None:
        """Note that a run begins without a checkpoint."""
        self._absent.set(_graph(place), value=True)

    def note_put(self, place: Place, checkpoint_id: str, version: int) -> None:
        """Note which version the put of a checkpoint gave the head."""
        self._put.set((_graph(place), checkpoint_id), version)

    def expect(self, namespace: str, config: Mapping[str, Any], new_id: str) -> Rounds[Expected]:
        """Return the condition of a put.

        A put without a parent that follows no read may replace any head: nothing tells what its caller has seen.

        Raises:
            StaleWriterError: The head names neither the checkpoint that the run continues nor the new one.
        """
        place = Place.of(config)
        parent_id = place.checkpoint_id
        if parent_id is None:
            return Expected(ABSENT if self._absent.get(_graph(place)) else None)
        expected = _expected_by(config, parent_id)
        if expected is not None:
            return expected
        version = self._put.get((_graph(place), parent_id))
        if version is not None:
            return Expected(version)
        head = yield from read_head(namespace, place)
        if head.checkpoint_id not in (parent_id, new_id):
            raise StaleWriterError(place.thread_id, place.checkpoint_ns, parent_id, head.checkpoint_id)
        return Expected(head.version)


def read_head(namespace: str, place: Place) -> Rounds[Head]:
    """Return the head of a graph: no checkpoint and the version ``ABSENT`` if there is none."""
    entry = (yield from read_entries(namespace, [place.head_key])).get(place.head_key)
    return Head.of(entry) if entry else Head(ABSENT, None)


def config_of(place: Place, checkpoint_id: str, head: Head) -> RunnableConfig:
    """Return the config of a checkpoint, for a caller that has seen this head."""
    kind = _LATEST if checkpoint_id == head.checkpoint_id else _PAST
    return {
        "configurable": {
            "thread_id": place.thread_id,
            "checkpoint_ns": place.checkpoint_ns,
            "checkpoint_id": checkpoint_id,
            _SEEN_HEAD: f"{head.version}:{kind}:{checkpoint_id}",
        }
    }


def head_step(place: Place, checkpoint_id: str, expected_version: int | None) -> dict[str, Any]:
    """Return the step that makes a checkpoint the latest one, if the head has the expected version."""
    step = {"tool": "kv_set", "key": place.head_key, "value": {"checkpoint_id": checkpoint_id}}
    if expected_version is None:
        return step
    condition = {"if_absent": True} if expected_version == ABSENT else {"expected_version": expected_version}
    return {**step, **condition}


def _graph(place: Place) -> _Graph:
    return place.thread_id, place.checkpoint_ns


def _expected_by(config: Mapping[str, Any], parent_id: str) -> Expected | None:
    """Return what the config has for this checkpoint. A subgraph's config inherits that of its parent."""
    version, _, rest = str(config["configurable"].get(_SEEN_HEAD, "")).partition(":")
    kind, _, checkpoint_id = rest.partition(":")
    if checkpoint_id != parent_id or not version.isdecimal():
        return None
    return Expected(int(version), is_fork=kind == _PAST)
