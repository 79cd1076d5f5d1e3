"""Lets FastMCP and other users of py-key-value keep their sessions, tokens and caches in kvworker.

Needs the extra ``py-key-value``::

    from fastmcp import FastMCP
    from kvworker import AsyncKeyValueStore
    from kvworker.integrations.key_value import KvworkerKeyValueStore

    store = KvworkerKeyValueStore(AsyncKeyValueStore.from_config("config/kvworker.yaml"))
    server = FastMCP("agent", session_state_store=store)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, SupportsFloat, cast

from kvworker import errors
from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.errors import extra_needed
from kvworker.model import (
    MAX_BATCH_STEPS,
    MAX_NAMESPACE_BYTES,
    MAX_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    KeyList,
    NamespaceList,
    StepResult,
    check_prefix,
    check_ttl,
)

try:
    from key_value.aio.errors import DeserializationError, InvalidKeyError, InvalidTTLError, SerializationError
    from key_value.aio.stores.base import (
        BaseDestroyCollectionStore,
        BaseEnumerateCollectionsStore,
        BaseEnumerateKeysStore,
        ManagedEntry,
    )
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        extra_needed("kvworker.integrations.key_value", "py-key-value"), name=missing.name
    ) from missing


class KvworkerKeyValueStore(BaseEnumerateKeysStore, BaseEnumerateCollectionsStore, BaseDestroyCollectionStore):
    """A py-key-value store (``AsyncKeyValue``) on a kvworker store.

    A collection is the namespace ``namespace_prefix + collection``, and a key is a key. A value is stored as the plain
    JSON object that it is, so another agent's ``kv_get`` can read it, and quotas count nothing else. A namespace
    therefore has at most 255 bytes of UTF-8 and a key 1024, and neither may be blank. Values come back unchanged; those
    that JSON would change, such as a tuple or NaN, are refused.

    TTLs are kvworker's own. The database's clock alone decides expiry, and ``ttl`` returns the remaining seconds by
    that clock. A TTL of more than 300 years is cut to that.

    A call for many keys is one message per 1000 keys, each applied whole or not at all. ``put_if_absent`` is atomic.
    ``keys`` and ``collections`` return sorted names, 1000 per message, and all of them without a limit. They
    may or may not include names written meanwhile.

    Limits of a store behind a queue:

    - A call is a message to a worker and back. It takes milliseconds where a local cache takes microseconds.
    - The contract has no operation id. After an ``OperationTimeoutError``, a write may have been applied. Putting again
      is safe, but deleting again may report that the value did not exist.
    - ``cull`` is not implemented: beat sweeps expired entries, and callers need not. ``destroy`` is not implemented:
      the store also holds other programs' namespaces. ``destroy_collection`` clears one namespace, in one transaction.
    - A quota applies to a namespace, so to a collection. FastMCP keeps the state of all its sessions in the collection
      ``fastmcp_state``: give it a large enough quota with ``set_quota``.

    Every method raises py-key-value's ``InvalidKeyError``, ``InvalidTTLError`` and ``SerializationError``, and its
    ``DeserializationError`` for a stored value that is not a JSON object. All other errors are those of
    ``kvworker.errors``.
    """

    def __init__(
        self,
        store: AsyncKeyValueStore | KeyValueOperations,
        *,
        namespace_prefix: str = "",
        default_collection: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Make a py-key-value store.

        Args:
            store: The kvworker store to use. Closing it remains your task. A synchronous store is called in threads.
            namespace_prefix: The first part of the names of all namespaces. End it with a separator: stores share no
                entries if neither prefix is the beginning of the other.
            default_collection: The collection of calls that name none; "default_collection" if left out.
            timeout: Seconds for each message; None for the store's own timeout.

        Raises:
            kvworker.InvalidKeyError: The prefix cannot begin a namespace.
        """
        self._store = store
        self._prefix = check_prefix("namespace_prefix", namespace_prefix, MAX_NAMESPACE_BYTES)
        self._timeout = timeout
        super().__init__(default_collection=default_collection, stable_api=True)

    async def setup_collection(self, *, collection: str) -> None:  # noqa: ARG002 - the base class's signature
        """Do nothing for the collection. The base class would keep every collection's name in memory."""
        await self.setup()

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Store a value, for ``ttl`` seconds if given."""
        await super().put(key, value, collection=collection, ttl=_checked_ttl(ttl))

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store the values under the keys at the same positions, for ``ttl`` seconds if given."""
        await super().put_many(keys, values, collection=collection, ttl=_checked_ttl(ttl))

    async def put_if_absent(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> bool:
        """Store a value in one atomic operation, but only if the key has none.

        Returns:
            True if the value was stored.
        """
        put = partial(self._store.set, if_absent=True, ttl_seconds=_checked_ttl(ttl))
        try:
            await self._call(put, self._namespace(collection), key, ManagedEntry(value=value).value_as_dict)
        except errors.VersionConflictError:
            return False
        return True

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        result: GetResult = await self._call(self._store.get, self._namespace(collection), key)
        return _managed_entry(result)

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        namespace = self._namespace(collection)
        results = [result for chunk in _chunks(keys) for result in await self._read(namespace, chunk)]
        return [_managed_entry(result) for result in results]

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        put = partial(self._store.set, ttl_seconds=_ttl_seconds(managed_entry))
        await self._call(put, self._namespace(collection), key, managed_entry.value_as_dict)

    async def _put_managed_entries(
        self, *, collection: str, keys: Sequence[str], managed_entries: Sequence[ManagedEntry], **_times: Any
    ) -> None:
        operations = [
            {"tool": "kv_set", "key": key, "value": entry.value_as_dict, "ttl_seconds": _ttl_seconds(entry)}
            for key, entry in zip(keys, managed_entries, strict=True)
        ]
        await self._write(collection, operations)

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        result: DeleteResult = await self._call(self._store.delete, self._namespace(collection), key)
        return result.deleted

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        results = await self._write(collection, [{"tool": "kv_delete", "key": key} for key in keys])
        return sum(isinstance(result, DeleteResult) and result.deleted for result in results)

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        def keys_of(page: KeyList) -> list[str]:
            """Return the keys of a page."""
            return [entry.key for entry in page.entries]

        return await self._list_names(partial(self._store.list_keys, self._namespace(collection)), keys_of, limit)

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        def collections_of(page: NamespaceList) -> list[str]:
            """Return the collections that the namespaces of a page belong to."""
            names = [str(usage.namespace).removeprefix(self._prefix) for usage in page.namespaces]
            # The prefix alone may be another program's namespace. A collection's name is never empty.
            return [name for name in names if name]

        return await self._list_names(partial(self._store.list_namespaces, prefix=self._prefix), collections_of, limit)

    async def _delete_collection(self, *, collection: str) -> bool:
        result: ClearResult = await self._call(self._store.clear, self._namespace(collection))
        return result.deleted_entries > 0

    def _namespace(self, collection: str | None) -> str:
        return self._prefix + (collection or self.default_collection)

    async def _read(self, namespace: str, keys: Sequence[str]) -> Sequence[GetResult]:
        if len(keys) == 1:
            return [await self._call(self._store.get, namespace, keys[0])]
        operations = [{"tool": "kv_get", "key": key} for key in keys]
        try:
            batch: BatchResult = await self._call(self._store.batch, namespace, operations)
        except errors.ReadTooLargeError:
            middle = len(keys) // 2
            return [*await self._read(namespace, keys[:middle]), *await self._read(namespace, keys[middle:])]
        return cast(Sequence[GetResult], batch.results)

    async def _write(self, collection: str, operations: Sequence[Mapping[str, Any]]) -> list[StepResult]:
        namespace = self._namespace(collection)
        return [
            result
            for chunk in _chunks(operations)
            for result in (await self._call(self._store.batch, namespace, chunk)).results
        ]

    async def _list_names(
        self, list_page: Callable[..., Any], names_of: Callable[[Any], list[str]], limit: int | None
    ) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while limit is None or len(names) < limit:
            rows = MAX_PAGE_ROWS if limit is None else min(limit - len(names), MAX_PAGE_ROWS)
            page = await self._call(list_page, limit=rows, cursor=cursor)
            names += names_of(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        return names

    async def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of the store and translate its errors, where py-key-value has a class for them."""
        options["timeout"] = self._timeout
        try:
            if isinstance(self._store, KeyValueOperations):
                return await asyncio.to_thread(method, *arguments, **options)
            return await method(*arguments, **options)
        except errors.InvalidKeyError as error:
            raise InvalidKeyError(str(error)) from error
        except errors.InvalidTTLError as error:
            raise InvalidTTLError(ttl=error) from error
        except errors.ValueSerializationError as error:
            raise SerializationError(str(error)) from error


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    # A copy, because a Sequence need not support slices.
    rows = list(items)
    return [rows[start : start + MAX_BATCH_STEPS] for start in range(0, len(rows), MAX_BATCH_STEPS)]


def _checked_ttl(ttl: SupportsFloat | None) -> float | None:
    try:
        # An int is not converted: check_ttl refuses a bool, and cuts an int that is too large for a float.
        return check_ttl(float(ttl) if isinstance(ttl, SupportsFloat) and not isinstance(ttl, int) else ttl)
    except (ArithmeticError, ValueError) as error:
        raise InvalidTTLError(ttl=error) from error


def _ttl_seconds(entry: ManagedEntry) -> float | None:
    if entry.expires_at is None or entry.created_at is None:
        return entry.ttl
    # The caller's TTL: the base class computed both times from one reading of this process's clock.
    return (entry.expires_at - entry.created_at).total_seconds()


def _managed_entry(result: GetResult) -> ManagedEntry | None:
    if not result.found:
        return None
    if not isinstance(result.value, dict):
        raise DeserializationError(
            message=f"the stored value is not a JSON object: its type is {type(result.value).__name__}",
            extra_info={"namespace": result.namespace, "key": result.key},
        )
    ttl = result.ttl_seconds
    expires_at = None if ttl is None else datetime.now(UTC) + timedelta(seconds=ttl)
    return ManagedEntry(value=result.value, expires_at=expires_at)
