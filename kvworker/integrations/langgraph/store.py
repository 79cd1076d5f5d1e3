"""The LangGraph store: runs batches of operations on the facade that it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from langgraph.store.base import BaseStore, IndexConfig, Op, Result, TTLConfig

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.errors import extra_needed
from kvworker.integrations.langgraph.batch import Batch
from kvworker.integrations.langgraph.items import Names
from kvworker.integrations.rounds import run, run_async, run_blocking

if TYPE_CHECKING:
    from kvworker.integrations.langgraph.vectors import Index


class KvworkerStore(BaseStore):
    """A LangGraph store on a kvworker store. Closing the kvworker store remains your task.

    Over a ``KeyValueStore`` or ``InlineKeyValueStore``, the asynchronous methods run in a thread. Over an
    ``AsyncKeyValueStore`` they never block, and the synchronous methods raise ``asyncio.InvalidStateError`` if an
    event loop is running in their thread.

    Names. The item ``key`` of ``("users", "1")`` is the entry ``key`` of the namespace ``langgraph:users.1``. The
    prefix keeps this store's items apart from all other entries; no other program may write there. A namespace's name
    has at most 255 bytes of UTF-8, prefix included. A longer one raises ``InvalidNamespaceError``, except in a search
    or a listing, which finds nothing. A key has at most 1024 bytes and is not blank.

    Values. The entry's value is an object with the item's value, which must be a mapping, with ``created_at`` and
    ``updated_at`` by the clock of the program that put it, and with ``ttl_minutes``. Values that JSON would change,
    such as a tuple or NaN, are refused.

    Batches. All reads of keys in one namespace are one message. All writes to one namespace are another message (one
    for every 1000), applied whole or not at all. Messages of several namespaces are sent at the same time, and each
    succeeds or fails on its own. All reads see the state before the batch. If a batch puts one key several times, the
    last put wins. A put may be repeated, for example after an ``OperationTimeoutError``: it leaves the same state.

    TTLs are in minutes, given with each put or as ``ttl["default_ttl"]``. A read renews the TTL, unless the read or
    ``ttl["refresh_on_read"]`` says otherwise. Renewing is a write, so the persona needs the right to write. The
    database decides expiry exactly: a read never returns an expired item, and a listing never returns a namespace
    that holds only expired items, swept or not. kvworker's beat sweeps them, so ``ttl["omit_expired"]`` and
    ``ttl["sweep_interval_minutes"]`` are not used.

    Meaning. With ``index`` (extra ``vectors``), a put embeds the texts of the item, and a search with a ``query``
    returns the nearest items first, by the exact cosine. The vectors are part of the entry, as 32-bit numbers in
    base64, and count in the quota: 8 KB for 1536 dimensions. Without ``index``, a search with a ``query`` raises
    ``NotImplementedError``, and a put's ``index`` is ignored. Items that were put without ``index`` have no score.

    Limits of a store behind a queue:

    - Every round of messages takes milliseconds. A get is one round. A put is two, because it reads the item that it
      replaces to keep ``created_at``. A read that renews a TTL is two. If two programs put a new key at the same
      moment, each may record its own creation time.
    - A search reads the values of all items in all matching namespaces until it has found enough: eight namespaces at
      a time, up to 1000 items or 4 MiB per message. Items before the offset are read and discarded. Items are sorted
      by their namespaces' names and their keys, not by time, so that pages are stable.
    - A search with a ``query`` reads all items that match, with their vectors, and compares each with the query.
    - A search or a listing of several messages is not a snapshot: it may or may not find items written meanwhile.
    - ``list_namespaces`` reads the names of all namespaces that begin with its literal prefix, whatever its limit.
    - Quotas apply to each namespace (1 MiB by default). A memory that grows without bound in one namespace needs a
      larger quota: ``set_quota("langgraph:users.1", …)``.

    Every method raises ``InvalidNamespaceError`` and the errors of ``kvworker.errors``.
    """

    supports_ttl = True

    def __init__(
        self,
        store: KeyValueOperations | AsyncKeyValueStore,
        *,
        prefix: str = "langgraph",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        timeout: float | None = None,
    ) -> None:
        """Make a LangGraph store.

        Args:
            store: The kvworker store to use. Closing it remains your task.
            prefix: The first part of the names of all namespaces. Stores of different prefixes share no items. It must
                not hold a colon.
            index: ``dims``, ``embed`` and ``fields``, as for LangGraph's own stores; None for no index.
            ttl: The default TTL, and whether reads renew TTLs.
            timeout: Seconds for each message; None for the store's own timeout.

        Raises:
            InvalidKeyError: The prefix is not a valid namespace, or holds a colon.
            InvalidRequestError: The index has no number of dimensions.
            ModuleNotFoundError: The index needs the extra ``vectors``.
        """
        self.store = store
        self.index_config = index
        self._index = _make_index(index) if index else None
        self.embeddings = self._index.embeddings if self._index else None
        self.ttl_config = ttl
        self._names = Names(prefix)
        self._timeout = timeout

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations and return their results in the same order."""
        if isinstance(self.store, AsyncKeyValueStore):
            return run_blocking(self.abatch(ops), "await with abatch, aget, aput, asearch, adelete, alist_namespaces")
        batch = self._batch(ops)
        if self._index:
            batch.use(self._index.embed(batch.texts(), batch.queries()))
        return run(batch.run(), self.store, self._timeout)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations and return their results in the same order."""
        batch = self._batch(ops)
        if self._index:
            batch.use(await self._index.aembed(batch.texts(), batch.queries()))
        if isinstance(self.store, AsyncKeyValueStore):
            return await run_async(batch.run(), self.store, self._timeout)
        return await asyncio.to_thread(run, batch.run(), self.store, self._timeout)

    def _batch(self, ops: Iterable[Op]) -> Batch:
        return Batch(ops, self._names, self._index)


def _make_index(config: IndexConfig) -> Index:
    try:
        from kvworker.integrations.langgraph.vectors import Index  # noqa: PLC0415 - only an index needs numpy
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "numpy":
            raise
        raise ModuleNotFoundError(
            extra_needed("the index of a KvworkerStore", "vectors"), name=missing.name
        ) from missing
    return Index(config)
