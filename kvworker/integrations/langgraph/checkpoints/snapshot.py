"""All that a thread holds, at one moment, and the deletion of a part of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from kvworker.errors import VersionConflictError
from kvworker.integrations.entries import Step, apply_each, apply_steps, list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.fence import head_step
from kvworker.integrations.langgraph.checkpoints.names import (
    CHECKPOINTS,
    HEADS,
    LIFE_KEY,
    RENEWAL_KEY,
    VALUES,
    WRITES,
    Place,
    place_of_head,
    place_of_key,
)
from kvworker.integrations.langgraph.checkpoints.reads import value_keys
from kvworker.integrations.langgraph.checkpoints.records import StoredCheckpoint, head_id
from kvworker.integrations.rounds import Rounds
from kvworker.model import GetResult, ListedEntry

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A thread between two puts. ``heads`` has the latest checkpoint of each graph, with the version of its head."""

    namespace: str
    life: GetResult
    heads: Mapping[Place, int]
    stored: Mapping[Place, StoredCheckpoint]
    versions: Mapping[Place, int]
    value_keys: Sequence[str]
    write_keys: Sequence[str]

    @classmethod
    def of(cls, thread_id: str, life: GetResult, listed: Mapping[str, Sequence[ListedEntry]]) -> Snapshot:
        """Make it of the listed entries, by the prefix of their keys."""
        heads = ((place_of_head(thread_id, head.key).at(head_id(head.value)), head.version) for head in listed[HEADS])
        checkpoints = [(place_of_key(thread_id, entry.key), entry) for entry in listed[CHECKPOINTS]]
        return cls(
            life.namespace,
            life,
            dict(heads),
            {place: StoredCheckpoint.from_json(entry.value) for place, entry in checkpoints},
            {place: entry.version for place, entry in checkpoints},
            [entry.key for entry in listed[VALUES]],
            [entry.key for entry in listed[WRITES]],
        )


def read_snapshot(namespace: str, thread_id: str) -> Rounds[Snapshot | None]:
    """Read a thread, or None if it does not exist or has expired.

    Raises:
        VersionConflictError: Other writers put checkpoints again and again while it was read.
    """
    before = yield from list_entries(namespace, HEADS)
    for _ in range(_ATTEMPTS):
        listed: dict[str, Sequence[ListedEntry]] = {}
        # Values come before checkpoints: one that is listed then belongs to a checkpoint that is listed, or to none.
        for prefix in (VALUES, WRITES, CHECKPOINTS, HEADS):
            listed[prefix] = yield from list_entries(namespace, prefix, with_values=prefix in (CHECKPOINTS, HEADS))
        heads = listed[HEADS]
        life = (yield from read_entries(namespace, [LIFE_KEY])).get(LIFE_KEY)
        if not heads or life is None:
            return None
        if _versions(heads) == _versions(before):
            return Snapshot.of(thread_id, life, listed)
        before = list(heads)
    raise VersionConflictError(namespace, heads[0].key, None, heads[0].version)


def move_heads(snapshot: Snapshot, kept: Collection[Place], options: Mapping[str, Any]) -> Rounds[None]:
    """Let the heads name the newest checkpoints that are kept. Runs that continue another one are refused from now on.

    Raises:
        VersionConflictError: A checkpoint was put meanwhile.
    """
    newest: dict[str, Place] = {}
    for place in sorted(kept, key=lambda each: cast(str, each.checkpoint_id)):
        newest[place.head_key] = place
    steps: list[Step] = []
    for head, version in snapshot.heads.items():
        if head in kept:
            continue
        latest = newest.get(head.head_key)
        if latest:
            steps.append({**head_step(latest, cast(str, latest.checkpoint_id), version), **options})
        else:
            steps.append({"tool": "kv_delete", "key": head.head_key, "expected_version": version})
    if not newest:
        steps.append({"tool": "kv_delete", "key": LIFE_KEY, "expected_version": snapshot.life.version})
        steps.append({"tool": "kv_delete", "key": RENEWAL_KEY})
    if steps:
        yield from apply_steps(snapshot.namespace, steps)


def delete_others(snapshot: Snapshot, kept: Collection[Place]) -> Rounds[None]:
    """Delete the checkpoints that are not kept, then their writes and the values that no kept one has.

    Raises:
        VersionConflictError: A run continues one of them meanwhile. Some were deleted, but no value was.
    """
    refused = yield from apply_each(
        snapshot.namespace,
        [
            {"tool": "kv_delete", "key": place.checkpoint_key, "expected_version": version}
            for place, version in snapshot.versions.items()
            if place not in kept
        ],
    )
    # Checkpoints that another program deleted meanwhile do not matter.
    for error in refused:
        if not isinstance(error, VersionConflictError) or error.actual_version is not None:
            raise error
    needed = {key for place in kept for key in value_keys(place, snapshot.stored[place])}
    doomed = [key for key in snapshot.value_keys if key not in needed]
    doomed += [key for key in snapshot.write_keys if _is_past(snapshot, kept, key)]
    yield from apply_each(snapshot.namespace, [{"tool": "kv_delete", "key": key} for key in doomed])


def _is_past(snapshot: Snapshot, kept: Collection[Place], key: str) -> bool:
    """True for a write of a checkpoint that is not kept. A newer checkpoint may not be stored yet."""
    place = place_of_key(next(iter(snapshot.heads)).thread_id, key)
    if place in kept:
        return False
    latest = [cast(str, head.checkpoint_id) for head in snapshot.heads if head.head_key == place.head_key]
    return place in snapshot.stored or any(cast(str, place.checkpoint_id) < head for head in latest)


def _versions(heads: Sequence[ListedEntry]) -> dict[str, int]:
    return {head.key: head.version for head in heads}
