"""The LangGraph checkpointer: runs the reads and writes of threads on the facade that it was given."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.integrations.langgraph.checkpoints.fence import Fence
from kvworker.integrations.langgraph.checkpoints.history import read_history
from kvworker.integrations.langgraph.checkpoints.lifetime import Lifetime
from kvworker.integrations.langgraph.checkpoints.listing import Choice, Listing, list_places
from kvworker.integrations.langgraph.checkpoints.names import Place, Threads
from kvworker.integrations.langgraph.checkpoints.reads import Reader, load_tuples
from kvworker.integrations.langgraph.checkpoints.records import Codec
from kvworker.integrations.langgraph.checkpoints.upkeep import Upkeep
from kvworker.integrations.langgraph.checkpoints.writes import Writer
from kvworker.integrations.rounds import Rounds, run, run_async, run_blocking

if TYPE_CHECKING:
    from langgraph.checkpoint.base import DeltaChannelHistory

_Result = TypeVar("_Result")

#: Checkpoints that a listing loads at the same time.
_LOADED: Final = 16


class KvworkerSaver(BaseCheckpointSaver[str]):
    """A LangGraph checkpointer on a kvworker store. Closing the kvworker store remains your task.

    Over a ``KeyValueStore`` or ``InlineKeyValueStore``, the asynchronous methods run in a thread. Over an
    ``AsyncKeyValueStore`` they never block, and the synchronous methods raise ``asyncio.InvalidStateError`` if an
    event loop is running in their thread.

    Threads. The thread ``7`` is the namespace ``checkpoints:7``, so quotas, policies and usage are those of the
    namespace. No other program may write there. A thread's id has at most 255 bytes of UTF-8, prefix included. A
    thread that outgrows the quota (1 MiB by default) raises ``NamespaceQuotaExceededError``, and nothing of the
    checkpoint is stored: prune the thread, or give it a larger quota with ``set_quota("checkpoints:7", …)``.

    Checkpoints. A checkpoint and the values that it changes are one message, stored whole or not at all. A value that
    several checkpoints share is stored once. LangGraph's serializer makes bytes of them, which are stored in base64 (a
    third longer). The ``serde`` may be LangGraph's ``EncryptedSerializer``; names of channels, tasks and runs are not
    encrypted.

    Writers. If two runs continue the same checkpoint, in any process, only the first to store its next one succeeds.
    The other one gets a ``StaleWriterError``. A run may replay or fork from a past checkpoint. The pending
    writes of a refused run stay at the checkpoint that it continued until that is pruned; as in LangGraph's own savers,
    a ``DeltaChannel`` may replay them.

    Size. A thread keeps all of its checkpoints until ``prune`` deletes them, except the latest and what that needs.
    With ``ttl_seconds``, a thread expires as a whole that long after its last checkpoint was put. Only puts renew it.

    A put is one round of messages, a get two to three. ``list`` reads the keys of all checkpoints of its threads.
    ``delete_for_runs``, and ``list`` without a config, look through all threads.

    Every method raises the errors of ``kvworker.errors``.
    """

    def __init__(
        self,
        store: KeyValueOperations | AsyncKeyValueStore,
        *,
        prefix: str = "checkpoints",
        ttl_seconds: float | None = None,
        timeout: float | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Make a LangGraph checkpointer.

        Args:
            store: The kvworker store to use. Closing it remains your task.
            prefix: The first part of the names of all namespaces. Checkpointers of different prefixes share no
                threads. It must not hold a colon.
            ttl_seconds: The TTL of threads; None for no expiry.
            timeout: Seconds for each message; None for the store's own timeout.
            serde: LangGraph's serializer; None for its ``JsonPlusSerializer``.

        Raises:
            InvalidKeyError: The prefix is not a valid namespace, or holds a colon.
            InvalidTTLError: The TTL is not a finite number of seconds above 0.
        """
        super().__init__(serde=serde)
        self.store = store
        self._threads = Threads(prefix)
        self._timeout = timeout
        lifetime, fence = Lifetime(ttl_seconds), Fence()
        self._reader = Reader(self._threads, fence, lifetime)
        self._writer = Writer(self._threads, fence, lifetime)
        self._upkeep = Upkeep(self._threads, lifetime)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that the config names, or else the thread's latest one, or None."""
        return self._run(self._reader.get_tuple(self._codec, config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that the config names, or else the thread's latest one, or None."""
        return await self._run_async(self._reader.get_tuple(self._codec, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """List checkpoints, the newest first: those of a thread, or without a config those of all threads.

        Args:
            config: The thread, and perhaps the graph and the checkpoint.
            filter: The names and values that a checkpoint's metadata must have.
            before: Only checkpoints older than this one.
            limit: The most to return; None for all.
        """
        found = self._run(list_places(self._threads, Choice.of(config, before)))
        for rounds in self._pages(found, filter):
            for each in self._run(rounds):
                if limit is not None and limit <= 0:
                    return
                limit = None if limit is None else limit - 1
                yield each

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List checkpoints like ``list``."""
        found = await self._run_async(list_places(self._threads, Choice.of(config, before)))
        for rounds in self._pages(found, filter):
            for each in await self._run_async(rounds):
                if limit is not None and limit <= 0:
                    return
                limit = None if limit is None else limit - 1
                yield each

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint and return its config.

        Raises:
            StaleWriterError: Another writer of the thread stored a checkpoint meanwhile. Nothing was stored.
        """
        return self._run(self._writer.put(self._codec, config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint like ``put``."""
        return await self._run_async(self._writer.put(self._codec, config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store a task's writes that its checkpoint does not have yet."""
        self._run(self._writer.put_writes(self._codec, config, writes, (task_id, task_path)))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store a task's writes that its checkpoint does not have yet."""
        await self._run_async(self._writer.put_writes(self._codec, config, writes, (task_id, task_path)))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread in one transaction. A run of it that is under way gets a ``StaleWriterError``."""
        self._run(self._upkeep.delete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread like ``delete_thread``."""
        await self._run_async(self._upkeep.delete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs, in all threads. Reads the checkpoints of all threads.

        Raises:
            VersionConflictError: A run of a thread put a checkpoint meanwhile. Call again.
        """
        self._run(self._upkeep.delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs like ``delete_for_runs``."""
        await self._run_async(self._upkeep.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all of its checkpoints. The copy is visible once it is complete.

        Raises:
            InvalidRequestError: The target exists.
        """
        self._run(self._upkeep.copy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread like ``copy_thread``."""
        await self._run_async(self._upkeep.copy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete what the latest checkpoints of some threads do not need, or the threads. Runs may be under way.

        Args:
            thread_ids: The threads.
            strategy: ``keep_latest`` keeps the latest checkpoint of each graph, with its pending writes, and the
                ancestors that a ``DeltaChannel`` needs. ``delete`` deletes the threads.

        Raises:
            VersionConflictError: A run put checkpoints meanwhile. Call again.
        """
        self._run(self._upkeep.prune(self._codec, thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads like ``prune``."""
        await self._run_async(self._upkeep.prune(self._codec, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what the checkpoint's ancestors wrote to some channels."""
        return self._run(self._history(config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what the checkpoint's ancestors wrote to some channels."""
        return await self._run_async(self._history(config, channels))

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph's signature
        """Return a version above the current one. Its random part tells apart what two branches of a thread write."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{secrets.randbits(53):016}"

    @property
    def _codec(self) -> Codec:
        # Not kept: with_allowlist copies the saver and replaces its serializer.
        return Codec(self.serde)

    def _history(self, config: RunnableConfig, channels: Sequence[str]) -> Rounds[Mapping[str, DeltaChannelHistory]]:
        if not channels:
            return {}
        place = Place.of(config)
        namespace = self._threads.namespace(place.thread_id)
        return (yield from read_history(self._codec, namespace, place, channels))

    def _pages(
        self, found: Sequence[tuple[Listing, Place]], wanted: Mapping[str, Any] | None
    ) -> Iterator[Rounds[Sequence[CheckpointTuple]]]:
        """Yield what loads the next checkpoints: consecutive ones of one thread."""
        start = 0
        while start < len(found):
            listing = found[start][0]
            end = start
            while end < len(found) and end < start + _LOADED and found[end][0] is listing:
                end += 1
            places = [place for _, place in found[start:end]]
            yield load_tuples(self._codec, listing.namespace, places, listing.heads, wanted)
            start = end

    def _run(self, rounds: Rounds[_Result]) -> _Result:
        if isinstance(self.store, AsyncKeyValueStore):
            return run_blocking(
                run_async(rounds, self.store, self._timeout), "the graph's ainvoke, astream and the like"
            )
        return run(rounds, self.store, self._timeout)

    async def _run_async(self, rounds: Rounds[_Result]) -> _Result:
        if isinstance(self.store, AsyncKeyValueStore):
            return await run_async(rounds, self.store, self._timeout)
        return await asyncio.to_thread(run, rounds, self.store, self._timeout)
