"""Deletes, copies and prunes threads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from kvworker.errors import InvalidRequestError
from kvworker.integrations.entries import Step, apply_steps, list_entries
from kvworker.integrations.langgraph.checkpoints.fence import ABSENT, head_step
from kvworker.integrations.langgraph.checkpoints.history import needed_ancestors
from kvworker.integrations.langgraph.checkpoints.lifetime import Lifetime
from kvworker.integrations.langgraph.checkpoints.listing import list_threads
from kvworker.integrations.langgraph.checkpoints.names import (
    LIFE_KEY,
    VALUES,
    WRITES,
    Place,
    Threads,
)
from kvworker.integrations.langgraph.checkpoints.records import Codec
from kvworker.integrations.langgraph.checkpoints.snapshot import Snapshot, delete_others, move_heads, read_snapshot
from kvworker.integrations.rounds import Call, Rounds, chunked, make_call
from kvworker.model import MAX_BATCH_STEPS, ListedEntry

#: The most in a message of a copy.
_COPIED_BYTES: Final = 1024 * 1024
_COPIED_RECORDS: Final = 100
_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Deletes, copies and prunes threads."""

    threads: Threads
    lifetime: Lifetime

    def delete_thread(self, thread_id: str) -> Rounds[None]:
        """Delete a thread in one transaction."""
        yield from make_call(Call("kv_clear", {"namespace": self.threads.namespace(thread_id)}))

    def delete_for_runs(self, run_ids: Sequence[str]) -> Rounds[None]:
        """Delete the checkpoints of some runs, in all threads.

        Raises:
            VersionConflictError: A run of the thread put a checkpoint meanwhile.
        """
        wanted = frozenset(map(str, run_ids))
        for namespace in (yield from list_threads(self.threads)) if wanted else []:
            snapshot = yield from read_snapshot(namespace, self.threads.thread_id(namespace))
            if snapshot is None:
                continue
            kept = {place for place, stored in snapshot.stored.items() if stored.run_id not in wanted}
            if len(kept) < len(snapshot.stored):
                yield from self._keep(snapshot, kept)

    def prune(self, codec: Codec, thread_ids: Sequence[str], strategy: str) -> Rounds[None]:
        """Delete the threads, or all that their latest checkpoints do not need.

        Raises:
            InvalidRequestError: The strategy is unknown.
            VersionConflictError: A run of the thread put a checkpoint meanwhile.
        """
        if strategy not in ("keep_latest", "delete"):
            raise InvalidRequestError(f'unknown strategy {strategy!r}: use "keep_latest" or "delete"')
        for thread_id in thread_ids:
            if strategy == "delete":
                yield from self.delete_thread(thread_id)
                continue
            snapshot = yield from read_snapshot(self.threads.namespace(thread_id), thread_id)
            if snapshot is not None:
                yield from self._keep(snapshot, _needed(codec, snapshot))

    def copy_thread(self, source_id: str, target_id: str) -> Rounds[None]:
        """Copy a thread. The copy is visible once it is complete.

        Raises:
            InvalidRequestError: The target exists.
            VersionConflictError: A run of the source put checkpoints meanwhile, or one began the target.
        """
        source, target = self.threads.namespace(source_id), self.threads.namespace(target_id)
        if (yield from list_entries(target)):
            raise InvalidRequestError(f"thread {target_id!r} exists: delete it first, or copy to another thread")
        snapshot = yield from read_snapshot(source, source_id)
        if snapshot is None:
            return
        for prefix in (VALUES, WRITES):
            entries = yield from list_entries(source, prefix, with_values=True)
            for chunk in _chunks(entries):
                yield from apply_steps(target, [self._set(entry.key, entry.value) for entry in chunk])
        records = [self._set(place.checkpoint_key, each.to_json()) for place, each in snapshot.stored.items()]
        for steps in chunked(records, _COPIED_RECORDS):
            yield from apply_steps(target, steps)
        heads = [head_step(head, cast(str, head.checkpoint_id), ABSENT) for head in snapshot.heads]
        life = {"tool": "kv_set", "key": LIFE_KEY, "value": True, **self.lifetime.of_thread}
        yield from apply_steps(target, [*({**head, **self.lifetime.of_entries} for head in heads), life])

    def _keep(self, snapshot: Snapshot, kept: Collection[Place]) -> Rounds[None]:
        yield from move_heads(snapshot, kept, self.lifetime.of_entries)
        yield from delete_others(snapshot, kept)

    def _set(self, key: str, value: Any) -> Step:
        return {"tool": "kv_set", "key": key, "value": value, **self.lifetime.of_entries}


def _needed(codec: Codec, snapshot: Snapshot) -> set[Place]:
    kept: set[Place] = set()
    latest = {head.checkpoint_ns: cast(str, head.checkpoint_id) for head in snapshot.heads}
    for head in snapshot.heads:
        metadata = codec.decode(snapshot.stored[head].metadata)
        if _is_over(head, metadata.get("parents") or {}, latest):
            continue
        kept.add(head)
        kept.update(needed_ancestors(head, snapshot.stored, list(metadata.get(_DELTA_COUNTERS) or ())))
    return kept


def _is_over(head: Place, parents: Mapping[str, str], latest: Mapping[str, str]) -> bool:
    """True for a subgraph that ran for one task of a checkpoint that its parent has left behind.

    Its name ends with the task's id, so it never runs again. One that keeps its state has no such id. The parent's
    checkpoint may be newer than the parent's latest one, if that is not stored yet.
    """
    is_of_one_task = ":" in head.checkpoint_ns.rpartition("|")[2]
    return is_of_one_task and any(checkpoint_id < latest.get(graph, "") for graph, checkpoint_id in parents.items())


def _chunks(entries: Sequence[ListedEntry]) -> Iterator[list[ListedEntry]]:
    """Split entries so that each message has a moderate size."""
    chunk: list[ListedEntry] = []
    size = 0
    for entry in entries:
        if chunk and (len(chunk) == MAX_BATCH_STEPS or size + entry.size_bytes > _COPIED_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += entry.size_bytes
    if chunk:
        yield chunk
