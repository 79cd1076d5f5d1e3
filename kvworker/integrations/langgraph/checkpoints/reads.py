"""Reads checkpoints with the values of their channels and their pending writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, PendingWrite

from kvworker.integrations.entries import list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.fence import Fence, Head, config_of
from kvworker.integrations.langgraph.checkpoints.lifetime import Lifetime
from kvworker.integrations.langgraph.checkpoints.names import LIFE_KEY, Place, Threads, write_of_key
from kvworker.integrations.langgraph.checkpoints.records import (
    Codec,
    IncompleteCheckpointError,
    StoredCheckpoint,
    StoredWrite,
    head_id,
)
from kvworker.integrations.rounds import Rounds, in_parallel
from kvworker.model import ListedEntry

_ATTEMPTS: Final = 5

Filter: TypeAlias = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the checkpoints of threads.

    Raises:
        InvalidRequestError: Another program wrote an entry of the thread.
        IncompleteCheckpointError: Another program deleted values of a checkpoint.
    """

    threads: Threads
    fence: Fence
    lifetime: Lifetime

    def get_tuple(self, codec: Codec, config: RunnableConfig) -> Rounds[CheckpointTuple | None]:
        """Return the checkpoint that the config names, or else the latest one, or None."""
        place = Place.of(config)
        namespace = self.threads.namespace(place.thread_id)
        for _ in range(_ATTEMPTS):
            found = yield from read_entries(namespace, [LIFE_KEY, place.head_key])
            life, head = found.get(LIFE_KEY), found.get(place.head_key)
            self.lifetime.note_life(namespace, life, has_leftovers=head is not None)
            if life is None or head is None:
                if place.checkpoint_id is None:
                    self.fence.note_absent(place)
                return None
            wanted = place.checkpoint_id or head_id(head.value)
            heads = {place.head_key: Head.of(head)}
            tuples = yield from load_tuples(codec, namespace, [place.at(wanted)], heads)
            if tuples or place.checkpoint_id:
                return tuples[0] if tuples else None
            # The latest checkpoint was replaced and pruned between both reads.
        raise IncompleteCheckpointError(
            f"the latest checkpoint of thread {place.thread_id!r} is missing: another program deleted it"
        )


def load_tuples(
    codec: Codec, namespace: str, places: Sequence[Place], heads: Mapping[str, Head], wanted: Filter = None
) -> Rounds[list[CheckpointTuple]]:
    """Load those of some checkpoints that exist and match the filter, in the same order.

    Args:
        codec: Decodes the stored bytes.
        namespace: The thread's namespace.
        places: The checkpoints.
        heads: The heads of their graphs, by key.
        wanted: The names and values that a checkpoint's metadata must have.

    Raises:
        IncompleteCheckpointError: A checkpoint exists, but not the values of its channels.
    """
    stored = yield from read_checkpoints(namespace, places)
    metadata = {place: codec.decode(each.metadata) for place, each in stored.items()}
    matching = [place for place in stored if _matches(metadata[place], wanted)]
    keys = {place: value_keys(place, stored[place]) for place in matching}
    reads: list[Rounds[Any]] = [
        read_entries(namespace, list(dict.fromkeys(chain.from_iterable(keys.values())))),
        in_parallel(read_writes(codec, namespace, place) for place in matching),
    ]
    values, writes = yield from in_parallel(reads)
    tuples = []
    for place, pending in zip(matching, writes, strict=True):
        record = stored[place]
        if not keys[place].keys() <= values.keys():
            yield from _check_gone(namespace, place)
            continue
        channels = {channel: codec.decode(values[key].value) for key, channel in keys[place].items()}
        checkpoint = cast(Checkpoint, {**codec.decode(record.checkpoint), "channel_values": channels})
        tuples.append(_tuple(place, checkpoint, metadata[place], record.parent_id, pending, heads[place.head_key]))
    return tuples


def read_checkpoints(namespace: str, places: Iterable[Place]) -> Rounds[dict[Place, StoredCheckpoint]]:
    """Read those of some checkpoints that exist, without values and writes."""
    by_key = {place.checkpoint_key: place for place in places}
    found = yield from read_entries(namespace, list(by_key))
    return {place: StoredCheckpoint.from_json(found[key].value) for key, place in by_key.items() if key in found}


def read_writes(codec: Codec, namespace: str, place: Place) -> Rounds[list[PendingWrite]]:
    """Read a checkpoint's pending writes, in the order in which LangGraph applies them."""
    entries = yield from list_entries(namespace, place.writes_prefix, with_values=True)
    return decode_writes(codec, entries)


def decode_writes(codec: Codec, entries: Iterable[ListedEntry], channels: Collection[str] = ()) -> list[PendingWrite]:
    """Decode the pending writes of one checkpoint, or only those to some channels, in the order of LangGraph."""
    ordered = []
    for entry in entries:
        write = StoredWrite.from_json(entry.value)
        if not channels or write.channel in channels:
            task_id, index = write_of_key(entry.key)
            ordered.append(((write.task_path, task_id, index), write))
    ordered.sort(key=lambda pair: pair[0])
    return [(task_id, write.channel, codec.decode(write.value)) for (_, task_id, _), write in ordered]


def value_keys(place: Place, stored: StoredCheckpoint) -> dict[str, str]:
    """Return the channels of a checkpoint that have a value, by the keys of their values."""
    return {place.value_key(channel, version): channel for channel, version in stored.values.items()}


def _matches(metadata: Mapping[str, Any], wanted: Filter) -> bool:
    return all(metadata.get(name) == value for name, value in (wanted or {}).items())


def _check_gone(namespace: str, place: Place) -> Rounds[None]:
    """Check that a checkpoint whose values are missing was deleted meanwhile."""
    if (yield from read_checkpoints(namespace, [place])):
        raise IncompleteCheckpointError(
            f"checkpoint {place.checkpoint_id} of thread {place.thread_id!r} lacks values of its channels: another"
            " program deleted them or lets them expire, or they were never put"
        )


def _tuple(
    place: Place,
    checkpoint: Checkpoint,
    metadata: Any,
    parent_id: str | None,
    pending: list[PendingWrite],
    head: Head,
) -> CheckpointTuple:
    return CheckpointTuple(
        config=config_of(place, cast(str, place.checkpoint_id), head),
        checkpoint=checkpoint,
        metadata=metadata,
        parent_config=config_of(place, parent_id, head) if parent_id else None,
        pending_writes=pending,
    )
