"""The LangGraph store itself: a batch of operations, over whichever facade it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from langgraph.store.base import BaseStore, Op, Result, TTLConfig

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.integrations.jobs import run, run_async, run_blocking
from kvworker.integrations.langgraph.batch import Batch
from kvworker.integrations.langgraph.items import Names


class KvworkerStore(BaseStore):
    """A LangGraph store on a kvworker store, which stays the caller's to close.

    Over a ``KeyValueStore`` or ``InlineKeyValueStore`` the asynchronous methods run in a thread; over an
    ``AsyncKeyValueStore`` they never block, and the synchronous ones work where no event loop runs (else
    ``asyncio.InvalidStateError``).

    The item ``key`` of ``("users", "1")`` is the entry ``key`` of the namespace ``langgraph:users.1``: the prefix
    keeps this store's items apart from all else, and nothing else may write there. A namespace's name is at most 255
    bytes of UTF-8 with the prefix (else ``InvalidNamespaceError``; a search or a listing finds nothing), a key 1024 and
    not blank. The entry's value is an object of the item's value, which is a mapping, ``created_at`` and ``updated_at``
    by the clock of the program that put it, and ``ttl_minutes``. What JSON would change, such as a tuple or NaN, is
    refused.

    Operations of one batch are grouped: all reads of keys in a namespace are one message, all its writes another,
    applied whole or not at all (for every 1000); those of other namespaces are on their way at the same time, and
    each namespace succeeds or fails for itself. All reads see what was there before the batch; of several puts of one
    key the last wins. A put may be repeated, as after an ``OperationTimeoutError``: it sets, and adds nothing.

    TTLs are minutes, for each put or as ``ttl["default_ttl"]``. A read renews them, unless it or
    ``ttl["refresh_on_read"]`` says otherwise; that is a write, and takes a persona that may. Expiry is the
    database's, to the moment: no read gives an expired item, and no listing a namespace that holds nothing else,
    swept or not. kvworker's beat sweeps them. So ``ttl["omit_expired"]`` and ``ttl["sweep_interval_minutes"]`` are
    not used.

    What the contract needs and a queue does not give well:

    - Every round of messages takes milliseconds: a get is one, a put two (it reads what it replaces, to keep
      ``created_at``), a read that renews a TTL two. Two first puts of a key at the same moment may each count as
      its creation.
    - A search reads the values of every item in every matching namespace, until it has found enough: eight
      namespaces at a time, up to 1000 items or 4 MiB in a message. An offset is read and thrown away. Items come in
      the order of their namespaces' names and their keys, not by time, so that pages stay the same.
    - There are no vectors: ``query`` and ``index`` are ignored, as in an ``InMemoryStore`` without an index, and
      scores are None.
    - No snapshot is held between messages: what is written meanwhile is found or not.
    - ``list_namespaces`` reads the names of all namespaces that begin with its literal prefix, whatever its limit.
    - Quotas are for each namespace (1 MiB by default), so a memory that grows without end in one namespace needs a
      larger one: ``set_quota("langgraph:users.1", …)``.

    Raises (every method): ``InvalidNamespaceError``, and what ``kvworker.errors`` draws.
    """

    supports_ttl = True

    def __init__(
        self,
        store: KeyValueOperations | AsyncKeyValueStore,
        *,
        prefix: str = "langgraph",
        ttl: TTLConfig | None = None,
        timeout: float | None = None,
    ) -> None:
        """A store of its own for each ``prefix``, which holds no colon; ``timeout`` is seconds for each message."""
        self.store = store
        self.ttl_config = ttl
        self._names = Names(prefix)
        self._timeout = timeout

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations, and give their results in the same order."""
        if isinstance(self.store, AsyncKeyValueStore):
            return run_blocking(self.abatch(ops), "await with abatch, aget, aput, asearch, adelete, alist_namespaces")
        return run(self._batch(ops).run(), self.store, self._timeout)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations, and give their results in the same order."""
        if isinstance(self.store, AsyncKeyValueStore):
            return await run_async(self._batch(ops).run(), self.store, self._timeout)
        return await asyncio.to_thread(self.batch, list(ops))

    def _batch(self, ops: Iterable[Op]) -> Batch:
        return Batch(ops, self._names)
