"""Lists threads and their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from kvworker.integrations.entries import list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.fence import Head
from kvworker.integrations.langgraph.checkpoints.names import (
    CHECKPOINTS,
    HEADS,
    LIFE_KEY,
    Place,
    Threads,
    place_of_key,
)
from kvworker.integrations.rounds import Call, Rounds, chunked, in_parallel, make_call
from kvworker.model import MAX_PAGE_ROWS, NamespaceList

#: Threads that are listed at the same time.
_WIDTH: Final = 16


@dataclass(frozen=True, slots=True)
class Listing:
    """The checkpoints of a thread, and its heads by key."""

    namespace: str
    places: Sequence[Place]
    heads: Mapping[str, Head]


@dataclass(frozen=True, slots=True)
class Choice:
    """The conditions that a listing's config and its ``before`` set."""

    place: Place | None
    checkpoint_ns: str | None
    before_id: str | None

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, before: Mapping[str, Any] | None) -> Choice:
        """Read both configs."""
        before_id = (before or {}).get("configurable", {}).get("checkpoint_id")
        if config is None:
            return cls(None, None, before_id)
        return cls(Place.of(config), config["configurable"].get("checkpoint_ns"), before_id)

    def includes(self, place: Place) -> bool:
        """True if the listing has this checkpoint."""
        checkpoint_id = cast(str, place.checkpoint_id)
        return (
            (self.before_id is None or checkpoint_id < self.before_id)
            and (self.checkpoint_ns is None or place.checkpoint_ns == self.checkpoint_ns)
            and (self.place is None or self.place.checkpoint_id in (None, checkpoint_id))
        )


def list_places(threads: Threads, choice: Choice) -> Rounds[list[tuple[Listing, Place]]]:
    """List the checkpoints of a choice, the newest first."""
    if choice.place is None:
        namespaces = yield from list_threads(threads)
    else:
        namespaces = [threads.namespace(choice.place.thread_id)]
    found: list[tuple[Listing, Place]] = []
    for group in chunked(namespaces, _WIDTH):
        for listing in (yield from in_parallel(_list_thread(threads, namespace) for namespace in group)):
            found += [(listing, place) for place in listing.places if choice.includes(place)]
    return sorted(found, key=lambda pair: cast(str, pair[1].checkpoint_id), reverse=True)


def list_threads(threads: Threads) -> Rounds[list[str]]:
    """Return the namespaces of all threads."""
    found: list[str] = []
    cursor = None
    while True:
        arguments = {"prefix": threads.root, "limit": MAX_PAGE_ROWS, "cursor": cursor}
        page: NamespaceList = yield from make_call(Call("kv_list_namespaces", arguments))
        found += [usage.namespace for usage in page.namespaces if usage.namespace is not None]
        cursor = page.next_cursor
        if cursor is None:
            return found


def _list_thread(threads: Threads, namespace: str) -> Rounds[Listing]:
    reads: list[Rounds[Any]] = [
        list_entries(namespace, CHECKPOINTS),
        list_entries(namespace, HEADS, with_values=True),
        read_entries(namespace, [LIFE_KEY]),
    ]
    checkpoints, entries, life = yield from in_parallel(reads)
    heads = {entry.key: Head.of(entry) for entry in entries} if life else {}
    places = [place_of_key(threads.thread_id(namespace), entry.key) for entry in checkpoints]
    return Listing(namespace, [place for place in places if place.head_key in heads], heads)
