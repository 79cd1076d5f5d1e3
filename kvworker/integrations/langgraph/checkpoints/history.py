"""Collects what the ancestors of a checkpoint contributed to LangGraph's delta channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from langgraph.checkpoint.base import PendingWrite

from kvworker.integrations.entries import list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.fence import read_head
from kvworker.integrations.langgraph.checkpoints.names import Place, place_of_key
from kvworker.integrations.langgraph.checkpoints.reads import decode_writes
from kvworker.integrations.langgraph.checkpoints.records import Codec, StoredCheckpoint
from kvworker.integrations.rounds import Rounds, chunked, in_parallel

if TYPE_CHECKING:
    from langgraph.checkpoint.base import DeltaChannelHistory

#: An ancestor, and the channels for which no nearer one has a value.
_Step: TypeAlias = tuple[Place, frozenset[str]]

#: Checkpoints whose writes are read at the same time.
_WIDTH: Final = 16


def read_history(
    codec: Codec, namespace: str, place: Place, channels: Sequence[str]
) -> Rounds[dict[str, DeltaChannelHistory]]:
    """Return the writes of the ancestors to some channels, back to the nearest ancestor that has the channel's value.

    Each channel's writes are in the order in which LangGraph applied them. A ``seed`` is that ancestor's value.
    """
    if place.checkpoint_id is None:
        place = place.at((yield from read_head(namespace, place)).checkpoint_id or "")
    entries = yield from list_entries(namespace, place.checkpoints_prefix, with_values=True)
    stored = {place_of_key(place.thread_id, entry.key): StoredCheckpoint.from_json(entry.value) for entry in entries}
    steps = list(_steps_back(place, stored, channels))
    seeds = yield from _read_seeds(codec, namespace, steps, stored)
    writes = yield from _read_writes(codec, namespace, steps)
    return {
        channel: cast("DeltaChannelHistory", {"writes": writes.get(channel, []), **seeds.get(channel, {})})
        for channel in channels
    }


def _read_seeds(
    codec: Codec, namespace: str, steps: Sequence[_Step], stored: Mapping[Place, StoredCheckpoint]
) -> Rounds[dict[str, dict[str, Any]]]:
    keys = {
        channel: ancestor.value_key(channel, stored[ancestor].values[channel])
        for ancestor, wanted in steps
        for channel in wanted & stored[ancestor].values.keys()
    }
    found = yield from read_entries(namespace, list(keys.values()))
    return {channel: {"seed": codec.decode(found[key].value)} for channel, key in keys.items() if key in found}


def _read_writes(codec: Codec, namespace: str, steps: Sequence[_Step]) -> Rounds[dict[str, list[PendingWrite]]]:
    """Read the writes by channel, the oldest first."""
    by_channel: dict[str, list[PendingWrite]] = {}
    for group in chunked(steps[::-1], _WIDTH):
        listed = yield from in_parallel(
            list_entries(namespace, ancestor.writes_prefix, with_values=True) for ancestor, _ in group
        )
        for (_, wanted), entries in zip(group, listed, strict=True):
            for write in decode_writes(codec, entries, wanted):
                by_channel.setdefault(write[1], []).append(write)
    return by_channel


def needed_ancestors(
    place: Place, stored: Mapping[Place, StoredCheckpoint], channels: Sequence[str]
) -> Iterator[Place]:
    """Yield the ancestors without which these channels of a checkpoint cannot be rebuilt."""
    missing = [channel for channel in channels if channel not in stored[place].values]
    return (ancestor for ancestor, _ in _steps_back(place, stored, missing))


def _steps_back(place: Place, stored: Mapping[Place, StoredCheckpoint], channels: Sequence[str]) -> Iterator[_Step]:
    """Yield the ancestors, the nearest first, each with the channels for which no nearer one has a value."""
    missing = frozenset(channels)
    current = stored.get(place)
    while missing and current and current.parent_id:
        place = place.at(current.parent_id)
        current = stored.get(place)
        if current is None:
            return
        yield place, missing
        missing -= current.values.keys()
