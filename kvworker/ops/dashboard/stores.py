"""Reads and changes entries for the pages, as the viewer's persona and within a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import anyio
from anyio import to_thread

from kvworker.adapters.providers import Adapters
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.client.sync import KeyValueStore
from kvworker.errors import StoreUnavailableError
from kvworker.model import GetResult, KeyList, LedgerUsage, UsagePage, UsageQuery
from kvworker.ops.dashboard.viewers import Viewer
from kvworker.settings import Settings
from kvworker.tools import find_tool
from kvworker.tools.denials import log_denial
from kvworker.tools.policy import Policy

_Result = TypeVar("_Result")

#: The longest time that a page waits for the database or for a worker.
ANSWER_SECONDS: Final = 5.0
_MOST_AT_ONCE: Final = 16
PAGE_ROWS: Final = 100


class Stores:
    """The stores that viewers see. Entries go through the queue, so that policies are enforced as for any caller.

    Args:
        settings: The settings of the store.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy(settings.policies)
        self._adapters = Adapters(settings)
        self._facades: dict[str | None, KeyValueStore] = {}
        self._lock = threading.Lock()
        self._limiter = anyio.CapacityLimiter(_MOST_AT_ONCE)

    def close(self) -> None:
        """Close all connections."""
        for facade in self._facades.values():
            facade.close()
        self._adapters.close()

    async def usage(self, viewer: Viewer, query: UsageQuery) -> UsagePage:
        """Read a page of the namespaces that a viewer may see, from the database itself."""
        self._policy.admit(viewer.persona, find_tool("kv_list_namespaces"), {})
        limited = replace(query, patterns=viewer.patterns, prefix=viewer.prefix)
        return await self._bounded(lambda: self._ranked(viewer.provider, limited))

    def _ranked(self, provider: str | None, query: UsageQuery) -> UsagePage:
        adapter = self._adapters.of(provider)
        if query.prefix and not isinstance(adapter, SqlAdapter):
            # A host's adapter may know no prefixes. The number of its namespaces would tell of those of others, too.
            return query.checked().page_of(adapter.usage())
        return adapter.rank_usage(query)

    async def namespace(self, viewer: Viewer, name: str) -> LedgerUsage:
        """Read the usage of a namespace."""
        return await self._call(viewer, "kv_usage", name, lambda store: store.usage(name, timeout=ANSWER_SECONDS))

    async def keys(self, viewer: Viewer, namespace: str, prefix: str, cursor: str | None) -> KeyList:
        """Read a page of the keys of a namespace."""
        return await self._call(
            viewer,
            "kv_list_keys",
            namespace,
            lambda store: store.list_keys(
                namespace, prefix=prefix, cursor=cursor, limit=PAGE_ROWS, timeout=ANSWER_SECONDS
            ),
        )

    async def entry(self, viewer: Viewer, namespace: str, key: str) -> GetResult:
        """Read an entry."""
        return await self._call(
            viewer, "kv_get", namespace, lambda store: store.get(namespace, key, timeout=ANSWER_SECONDS)
        )

    async def change(self, viewer: Viewer, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool that writes, and return its result."""
        return await self._call(
            viewer, tool, arguments["namespace"], lambda store: store.call(tool, arguments, timeout=ANSWER_SECONDS)
        )

    async def _call(
        self, viewer: Viewer, tool: str, namespace: str, call: Callable[[KeyValueStore], _Result]
    ) -> _Result:
        # Nothing tells whether another namespace exists.
        if not namespace.startswith(viewer.prefix):
            detail = f"the token is only for namespaces that begin with {viewer.prefix!r}"
            raise log_denial(viewer.persona or "", tool, namespace, detail)
        return await self._bounded(lambda: call(self._facade(viewer.persona)))

    def _facade(self, persona: str | None) -> KeyValueStore:
        with self._lock:
            if persona not in self._facades:
                self._facades[persona] = KeyValueStore(self._settings, persona)
            return self._facades[persona]

    async def _bounded(self, work: Callable[[], _Result]) -> _Result:
        """Run something in a thread that outlives a deadline: a frozen server must not hold up the page."""
        with anyio.move_on_after(ANSWER_SECONDS + 1):
            return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        raise StoreUnavailableError(f"no answer within {ANSWER_SECONDS + 1:g} s")
