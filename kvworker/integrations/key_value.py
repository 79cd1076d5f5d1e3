"""kvworker as a py-key-value store: what FastMCP and others take as their session, token and cache store.

It needs the extra ``py-key-value``::

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
        "kvworker.integrations.key_value needs py-key-value: pip install 'kvworker[py-key-value]'", name=missing.name
    ) from missing


class KvworkerKeyValueStore(BaseEnumerateKeysStore, BaseEnumerateCollectionsStore, BaseDestroyCollectionStore):
    """A py-key-value store (``AsyncKeyValue``) on a kvworker store.

    A collection is the namespace ``namespace_prefix + collection``, a key is a key, and a value is stored as the
    plain JSON object that it is: the ``kv_get`` of another agent reads it, and quotas count it alone. So collections
    (with the prefix) are at most 255 UTF-8 bytes, keys 1024, and neither is blank. A value comes back as it went in;
    one that JSON would change, such as a tuple or NaN, is refused.

    A TTL is kvworker's own: the database's clock alone decides expiry, and ``ttl`` tells what remains by it. One of
    more than 300 years is cut to that.

    The calls of many keys are one message for every 1000, each applied whole or not at all. ``put_if_absent`` is
    atomic. ``keys`` and ``collections`` list in order, all if there is no limit, 1000 in a message; what is written
    meanwhile is listed or not.

    What the contract needs and a queue does not give well:

    - A call is a message to a worker and back, milliseconds where a local cache takes microseconds.
    - The contract has no operation id. After an ``OperationTimeoutError`` a write may have been applied: putting
      again is safe, but deleting again may tell that nothing was there.
    - There is no ``cull``: beat sweeps expired entries, and a caller has no part in it. There is no ``destroy``:
      other programs' namespaces are in the same store; ``destroy_collection`` clears one, in one transaction.
    - A quota is a namespace's, thus a collection's, and FastMCP keeps the state of all its sessions in the one
      collection ``fastmcp_state``: give that a quota that is large enough with ``set_quota``.

    Raises (every method): py-key-value's ``InvalidKeyError``, ``InvalidTTLError``, ``SerializationError``, and
    ``DeserializationError`` for a stored value that is no JSON object; else what ``kvworker.errors`` draws, as itself.
    """

    def __init__(
        self,
        store: AsyncKeyValueStore | KeyValueOperations,
        *,
        namespace_prefix: str = "",
        default_collection: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Work on ``store``, which stays its owner's to close; one that is not asynchronous is called in threads.

        Stores of different prefixes share no entry if no prefix begins another: end them with a separator.
        ``default_collection`` is what a call without a collection means, "default_collection" if left out.
        ``timeout`` is in seconds, for each message; None is the store's own.

        Raises:
            kvworker.InvalidKeyError: the prefix is not the beginning of a namespace.
        """
        self._store = store
        self._prefix = check_prefix("namespace_prefix", namespace_prefix, MAX_NAMESPACE_BYTES)
        self._timeout = timeout
        super().__init__(default_collection=default_collection, stable_api=True)

    async def setup_collection(self, *, collection: str) -> None:  # noqa: ARG002 - the base class's signature
        """A namespace needs no preparation; the base class would remember every collection for good."""
        await self.setup()

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Store a value, for ``ttl`` seconds if that is given."""
        await super().put(key, value, collection=collection, ttl=_checked_ttl(ttl))

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Store values under the keys of the same places, for ``ttl`` seconds if that is given."""
        await super().put_many(keys, values, collection=collection, ttl=_checked_ttl(ttl))

    async def put_if_absent(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> bool:
        """Store a value only if there is none, in one atomic operation; tell whether it was stored."""
        put = partial(self._store.set, if_absent=True, ttl_seconds=_checked_ttl(ttl))
        try:
            await self._run(put, self._namespace(collection), key, ManagedEntry(value=value).value_as_dict)
        except errors.VersionConflictError:
            return False
        return True

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        result: GetResult = await self._run(self._store.get, self._namespace(collection), key)
        return _managed_entry(result)

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        namespace = self._namespace(collection)
        results = [result for chunk in _chunks(keys) for result in await self._read(namespace, chunk)]
        return [_managed_entry(result) for result in results]

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        put = partial(self._store.set, ttl_seconds=_ttl_seconds(managed_entry))
        await self._run(put, self._namespace(collection), key, managed_entry.value_as_dict)

    async def _put_managed_entries(
        self, *, collection: str, keys: Sequence[str], managed_entries: Sequence[ManagedEntry], **_times: Any
    ) -> None:
        operations = [
            {"tool": "kv_set", "key": key, "value": entry.value_as_dict, "ttl_seconds": _ttl_seconds(entry)}
            for key, entry in zip(keys, managed_entries, strict=True)
        ]
        await self._write(collection, operations)

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        result: DeleteResult = await self._run(self._store.delete, self._namespace(collection), key)
        return result.deleted

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        results = await self._write(collection, [{"tool": "kv_delete", "key": key} for key in keys])
        return sum(isinstance(result, DeleteResult) and result.deleted for result in results)

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        def keys_of(page: KeyList) -> list[str]:
            return [entry.key for entry in page.entries]

        return await self._names(partial(self._store.list_keys, self._namespace(collection)), keys_of, limit)

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        def collections_of(page: NamespaceList) -> list[str]:
            names = [str(usage.namespace).removeprefix(self._prefix) for usage in page.namespaces]
            # The prefix alone may be another program's namespace; no collection is called "".
            return [name for name in names if name]

        return await self._names(partial(self._store.list_namespaces, prefix=self._prefix), collections_of, limit)

    async def _delete_collection(self, *, collection: str) -> bool:
        result: ClearResult = await self._run(self._store.clear, self._namespace(collection))
        return result.deleted_entries > 0

    def _namespace(self, collection: str | None) -> str:
        return self._prefix + (collection or self.default_collection)

    async def _read(self, namespace: str, keys: Sequence[str]) -> Sequence[GetResult]:
        if len(keys) == 1:
            return [await self._run(self._store.get, namespace, keys[0])]
        operations = [{"tool": "kv_get", "key": key} for key in keys]
        try:
            batch: BatchResult = await self._run(self._store.batch, namespace, operations)
        except errors.ReadTooLargeError:
            middle = len(keys) // 2
            return [*await self._read(namespace, keys[:middle]), *await self._read(namespace, keys[middle:])]
        return cast(Sequence[GetResult], batch.results)

    async def _write(self, collection: str, operations: Sequence[Mapping[str, Any]]) -> list[StepResult]:
        namespace = self._namespace(collection)
        return [
            result
            for chunk in _chunks(operations)
            for result in (await self._run(self._store.batch, namespace, chunk)).results
        ]

    async def _names(
        self, list_page: Callable[..., Any], names_of: Callable[[Any], list[str]], limit: int | None
    ) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while limit is None or len(names) < limit:
            rows = MAX_PAGE_ROWS if limit is None else min(limit - len(names), MAX_PAGE_ROWS)
            page = await self._run(list_page, limit=rows, cursor=cursor)
            names += names_of(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        return names

    async def _run(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the store's method gives; of its errors, those that py-key-value has a class for become that."""
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
    # A sequence need not have slices.
    rows = list(items)
    return [rows[start : start + MAX_BATCH_STEPS] for start in range(0, len(rows), MAX_BATCH_STEPS)]


def _checked_ttl(ttl: SupportsFloat | None) -> float | None:
    try:
        # An int stays one: a bool is refused, and one that no float holds is only long.
        return check_ttl(float(ttl) if isinstance(ttl, SupportsFloat) and not isinstance(ttl, int) else ttl)
    except (ArithmeticError, ValueError) as error:
        raise InvalidTTLError(ttl=error) from error


def _ttl_seconds(entry: ManagedEntry) -> float | None:
    if entry.expires_at is None or entry.created_at is None:
        return entry.ttl
    # What was asked for: both come from one reading of this process's clock, which so does not matter.
    return (entry.expires_at - entry.created_at).total_seconds()


def _managed_entry(result: GetResult) -> ManagedEntry | None:
    if not result.found:
        return None
    if not isinstance(result.value, dict):
        raise DeserializationError(
            message=f"the stored value is no JSON object but of type {type(result.value).__name__}",
            extra_info={"namespace": result.namespace, "key": result.key},
        )
    ttl = result.ttl_seconds
    expires_at = None if ttl is None else datetime.now(UTC) + timedelta(seconds=ttl)
    return ManagedEntry(value=result.value, expires_at=expires_at)
