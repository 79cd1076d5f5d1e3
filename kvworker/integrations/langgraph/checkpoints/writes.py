"""Puts checkpoints and their pending writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)

from kvworker.errors import InvalidRequestError, QuotaExceededError, VersionConflictError
from kvworker.integrations.entries import Step, apply_steps, list_entries, read_entries
from kvworker.integrations.langgraph.checkpoints.fence import (
    Fence,
    Head,
    StaleWriterError,
    config_of,
    head_step,
    read_head,
)
from kvworker.integrations.langgraph.checkpoints.lifetime import Lifetime, ThreadExpiredError
from kvworker.integrations.langgraph.checkpoints.names import LIFE_KEY, Place, Threads
from kvworker.integrations.langgraph.checkpoints.records import Codec, StoredCheckpoint, StoredWrite
from kvworker.integrations.rounds import Rounds
from kvworker.model import check_key

_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Writer:
    """Puts checkpoints and pending writes into threads.

    Raises:
        InvalidKeyError: A thread, a channel or a task has a name that the store does not accept.
        QuotaExceededError: The thread's namespace, or the whole store, is full.
    """

    threads: Threads
    fence: Fence
    lifetime: Lifetime

    def put(
        self,
        codec: Codec,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Rounds[RunnableConfig]:
        """Store a checkpoint and the new values of its channels in one message, all or nothing.

        Returns:
            The checkpoint's config.

        Raises:
            StaleWriterError: Another writer stored a checkpoint meanwhile.
        """
        place, new_id = Place.of(config), checkpoint["id"]
        namespace = self.threads.namespace(place.thread_id)
        metadata = get_checkpoint_metadata(config, metadata)
        stored = StoredCheckpoint.put(codec, checkpoint, metadata, place.checkpoint_id)
        steps = self._steps(codec, place, stored, checkpoint, new_versions)
        try:
            steps += yield from self.lifetime.prepare(namespace, is_continued=place.checkpoint_id is not None)
        except ThreadExpiredError:
            raise _stale(place, None) from None
        expected = yield from self.fence.expect(namespace, config, new_id)
        if expected.is_fork:
            steps.append((yield from self._hold_parent(namespace, place)))
        steps.insert(0, {**head_step(place, new_id, expected.version), **self.lifetime.of_entries})
        try:
            now = Head((yield from apply_steps(namespace, steps))[0].version, new_id)
        except VersionConflictError as error:
            now = yield from read_head(namespace, place)
            # An earlier attempt, whose answer got lost, may have stored it.
            if now.checkpoint_id != new_id:
                raise _stale(place, now.checkpoint_id) from error
        except QuotaExceededError as error:
            error.add_note(_advice(place, namespace))
            raise
        self.fence.note_put(place, new_id, now.version)
        return config_of(place, new_id, now)

    def put_writes(
        self, codec: Codec, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task: tuple[str, str]
    ) -> Rounds[None]:
        """Store the pending writes of a task, which its id and its path name, in one message, all or nothing.

        A write that exists stays as it is, except those to LangGraph's special channels, such as interrupts.

        Raises:
            InvalidRequestError: The config names no checkpoint.
        """
        place = Place.of(config)
        if place.checkpoint_id is None:
            raise InvalidRequestError("pending writes need the checkpoint_id of their checkpoint in the config")
        namespace = self.threads.namespace(place.thread_id)
        steps = self._write_steps(codec, place, writes, task)
        for _ in range(_ATTEMPTS):
            if not steps:
                return
            try:
                yield from apply_steps(namespace, list(steps.values()))
            except VersionConflictError as error:
                conflict = error
            except QuotaExceededError as error:
                error.add_note(_advice(place, namespace))
                raise
            else:
                return
            stored = yield from list_entries(namespace, place.writes_prefix)
            for entry in stored:
                if "if_absent" in steps.get(entry.key, {}):
                    del steps[entry.key]
        raise conflict

    def _steps(
        self,
        codec: Codec,
        place: Place,
        stored: StoredCheckpoint,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
    ) -> list[Step]:
        values = checkpoint["channel_values"]
        entries: dict[str, Any] = {place.at(checkpoint["id"]).checkpoint_key: stored.to_json()}
        for channel, version in new_versions.items():
            if channel in values:
                entries[place.value_key(channel, str(version))] = codec.encode(values[channel])
        life = {"tool": "kv_set", "key": LIFE_KEY, "value": True, **self.lifetime.of_thread}
        return [life, *(self._set_step(key, value) for key, value in entries.items())]

    def _hold_parent(self, namespace: str, place: Place) -> Rounds[Step]:
        """Return a step that refuses the put if a prune deletes the past checkpoint that the run continues."""
        parent = (yield from read_entries(namespace, [place.checkpoint_key])).get(place.checkpoint_key)
        if parent is None:
            raise _stale(place, (yield from read_head(namespace, place)).checkpoint_id)
        return {**self._set_step(parent.key, parent.value), "expected_version": parent.version}

    def _write_steps(
        self, codec: Codec, place: Place, writes: Sequence[tuple[str, Any]], task: tuple[str, str]
    ) -> dict[str, Step]:
        task_id, task_path = task
        steps: dict[str, Step] = {}
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            key = place.write_key(task_id, index)
            step = self._set_step(key, StoredWrite(channel, codec.encode(value), task_path).to_json())
            steps[key] = {**step, "if_absent": True} if index >= 0 else step
        return steps

    def _set_step(self, key: str, value: Any) -> Step:
        return {"tool": "kv_set", "key": check_key(key), "value": value, **self.lifetime.of_entries}


def _advice(place: Place, namespace: str) -> str:
    return f"thread {place.thread_id!r} has no room: prune it, or set a larger quota for {namespace!r}"


def _stale(place: Place, latest_id: str | None) -> StaleWriterError:
    return StaleWriterError(place.thread_id, place.checkpoint_ns, place.checkpoint_id, latest_id)
