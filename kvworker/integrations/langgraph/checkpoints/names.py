"""Maps LangGraph's threads to the store's namespaces, and what a thread holds to keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote

from kvworker.errors import InvalidKeyError, InvalidRequestError
from kvworker.model import check_namespace

_AFTER_PREFIX = ":"

#: A thread is visible as long as it has this entry. With a TTL, this entry expires before all others.
LIFE_KEY: Final = "thread"

#: While it exists, every other entry of the thread outlives the thread.
RENEWAL_KEY: Final = "renewal"

CHECKPOINTS: Final = "checkpoint/"
HEADS: Final = "head/"
VALUES: Final = "value/"
WRITES: Final = "writes/"


@dataclass(frozen=True, slots=True)
class Threads:
    """Maps threads to namespaces: the thread ``7`` is the namespace ``checkpoints:7``.

    Raises:
        InvalidKeyError: The prefix is not a valid namespace, or holds a colon.
    """

    prefix: str

    def __post_init__(self) -> None:
        if _AFTER_PREFIX in check_namespace(self.prefix):
            raise InvalidKeyError(f"the prefix of a checkpointer must not hold {_AFTER_PREFIX!r}: {self.prefix!r}")

    @property
    def root(self) -> str:
        """The prefix of the namespaces of all threads."""
        return self.prefix + _AFTER_PREFIX

    def namespace(self, thread_id: str) -> str:
        """Return a thread's namespace.

        Raises:
            InvalidKeyError: The name would be longer than 255 bytes of UTF-8, or is not UTF-8.
        """
        try:
            return check_namespace(self.root + thread_id)
        except InvalidKeyError as error:
            raise InvalidKeyError(
                f"thread_id {thread_id!r} cannot name a thread with the prefix {self.prefix!r}: {error}"
            ) from None

    def thread_id(self, namespace: str) -> str:
        """Return the thread that ``namespace`` gave this name."""
        return namespace.removeprefix(self.root)


@dataclass(frozen=True, slots=True)
class Place:
    """A thread, a graph in it, and perhaps one of its checkpoints, as a config names them."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Place:
        """Read a config.

        Raises:
            InvalidRequestError: The config names no thread.
        """
        configurable = config.get("configurable") or {}
        if configurable.get("thread_id") is None:
            raise InvalidRequestError(
                'the config names no thread: pass {"configurable": {"thread_id": …}} to the graph with a checkpointer'
            )
        checkpoint_id = configurable.get("checkpoint_id")
        return cls(
            str(configurable["thread_id"]),
            str(configurable.get("checkpoint_ns") or ""),
            str(checkpoint_id) if checkpoint_id else None,
        )

    def at(self, checkpoint_id: str) -> Place:
        """Return the place of a checkpoint of the same graph."""
        return replace(self, checkpoint_id=checkpoint_id)

    @property
    def head_key(self) -> str:
        """The key of the entry that names the latest checkpoint."""
        return HEADS + _quoted(self.checkpoint_ns)

    @property
    def checkpoints_prefix(self) -> str:
        """The prefix of the keys of this graph's checkpoints."""
        return f"{CHECKPOINTS}{_quoted(self.checkpoint_ns)}/"

    @property
    def checkpoint_key(self) -> str:
        """The key of the checkpoint."""
        return self.checkpoints_prefix + _quoted(self.checkpoint_id or "")

    @property
    def writes_prefix(self) -> str:
        """The prefix of the keys of the checkpoint's pending writes."""
        return f"{WRITES}{_quoted(self.checkpoint_ns)}/{_quoted(self.checkpoint_id or '')}/"

    def write_key(self, task_id: str, index: int) -> str:
        """Return the key of a pending write."""
        return f"{self.writes_prefix}{_quoted(task_id)}/{index}"

    def value_key(self, channel: str, version: str) -> str:
        """Return the key of a channel's value at a version."""
        return f"{VALUES}{_quoted(self.checkpoint_ns)}/{_quoted(channel)}/{_quoted(version)}"


def place_of_key(thread_id: str, key: str) -> Place:
    """Return the place of a checkpoint, from its key or from that of one of its writes."""
    _, checkpoint_ns, checkpoint_id, *_rest = (unquote(part) for part in key.split("/"))
    return Place(thread_id, checkpoint_ns, checkpoint_id)


def place_of_head(thread_id: str, key: str) -> Place:
    """Return the graph whose latest checkpoint the entry names."""
    return Place(thread_id, unquote(key.removeprefix(HEADS)))


def write_of_key(key: str) -> tuple[str, int]:
    """Return the task and the index of a pending write, from its key."""
    task_id, index = key.split("/")[-2:]
    return unquote(task_id), int(index)


def _quoted(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F").replace("\x00", "%00")
