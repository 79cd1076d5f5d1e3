"""Keeps the conversations of OpenAI's Agents SDK in kvworker: a ``Session`` to run an agent with.

Needs the extra ``openai-agents``::

    from agents import Runner
    from kvworker import AsyncKeyValueStore
    from kvworker.integrations.openai_agents import KvworkerSession

    async with AsyncKeyValueStore.from_config("config/kvworker.yaml") as store:
        session = KvworkerSession("user-7", store, max_items=200)
        await Runner.run(agent, "hello", session=session)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.errors import InvalidKeyError, InvalidRequestError, InvalidValueTypeError, VersionConflictError
from kvworker.integrations.rounds import Call, Rounds, make_call, run, run_async
from kvworker.model import check_namespace, check_ttl

if TYPE_CHECKING:
    from agents import TResponseInputItem
    from agents.memory import SessionSettings

_Result = TypeVar("_Result")

_KEY: Final = "items"
#: Each lost race means that another writer changed the session, so this many in a row are a defect.
_ATTEMPTS: Final = 100


class KvworkerSession:
    """A conversation of the Agents SDK on a kvworker store. Closing the kvworker store remains your task.

    Over an ``AsyncKeyValueStore`` the methods never block. Over a ``KeyValueStore`` or ``InlineKeyValueStore`` they run
    in a thread.

    The session ``user-7`` is the entry ``items`` of the namespace ``sessions:user-7``: a list of the items. So quotas,
    policies and usage are those of the namespace. Adding items is one message, atomic beside other writers, and stored
    whole or not at all. Popping an item is two messages; if another writer comes between, it is tried again, so that no
    two callers pop the same item.

    A session grows until its quota (1 MiB by default) refuses more with ``NamespaceQuotaExceededError``. ``max_items``
    drops the oldest items instead. With ``ttl_seconds``, the session expires that long after its last change.

    Every method raises the errors of ``kvworker.errors``. After an ``OperationTimeoutError`` of ``add_items``, look at
    the session before you add the items again.
    """

    def __init__(
        self,
        session_id: str,
        store: AsyncKeyValueStore | KeyValueOperations,
        *,
        prefix: str = "sessions",
        max_items: int | None = None,
        ttl_seconds: float | None = None,
        timeout: float | None = None,
        session_settings: SessionSettings | None = None,
    ) -> None:
        """Make a session.

        Args:
            session_id: The name of the conversation.
            store: The kvworker store to use. Closing it remains your task.
            prefix: The first part of the namespace's name. It must not hold a colon.
            max_items: The most items to keep; None for all.
            ttl_seconds: The TTL of the session; None for no expiry.
            timeout: Seconds for each message; None for the store's own timeout.
            session_settings: The SDK's settings, such as how many items a run reads.

        Raises:
            InvalidKeyError: The session or the prefix cannot name a namespace.
            InvalidRequestError: ``max_items`` is not an integer above 0.
            InvalidTTLError: The TTL is not a finite number of seconds above 0.
        """
        if ":" in check_namespace(prefix):
            raise InvalidKeyError(f"the prefix of a session must not hold ':': {prefix!r}")
        limit: object = max_items
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidRequestError(f"max_items must be an integer above 0, or None for no limit: {limit!r}")
        self.session_id = session_id
        self.session_settings = session_settings
        self.store = store
        self._namespace = check_namespace(f"{prefix}:{session_id}")
        self._max_items = max_items
        self._ttl_seconds = check_ttl(ttl_seconds)
        self._timeout = timeout

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, the oldest first: all, or the latest ``limit`` ones."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        items, _ = await self._run(self._read())
        return items if limit is None else items[max(len(items) - limit, 0) :] if limit > 0 else []

    async def add_items(self, items: Sequence[TResponseInputItem]) -> None:
        """Add items at the end."""
        if items:
            await self._run(self._add(list(items)))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it, or None if there is none."""
        return await self._run(self._pop())

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._run(make_call(self._call("kv_delete")))

    def _add(self, items: list[Any]) -> Rounds[None]:
        options = {"max_items": self._max_items, "ttl_seconds": self._ttl_seconds}
        yield from make_call(self._call("kv_append", items=items, **options))

    def _pop(self) -> Rounds[TResponseInputItem | None]:
        for _ in range(_ATTEMPTS):
            items, version = yield from self._read()
            if not items:
                return None
            rest = items[:-1]
            expiry = {"keep_ttl": True} if self._ttl_seconds is None else {"ttl_seconds": self._ttl_seconds}
            change = self._call("kv_set", value=rest, **expiry) if rest else self._call("kv_delete")
            try:
                yield from make_call(Call(change.tool, {**change.arguments, "expected_version": version}))
            except VersionConflictError as error:
                conflict = error
                continue
            return items[-1]
        raise conflict

    def _read(self) -> Rounds[tuple[list[TResponseInputItem], int]]:
        entry = yield from make_call(self._call("kv_get"))
        if not entry.found:
            return [], 0
        if not isinstance(entry.value, list):
            raise InvalidValueTypeError(self._namespace, _KEY, "a list")
        return cast("list[TResponseInputItem]", entry.value), entry.version

    def _call(self, tool: str, **arguments: Any) -> Call:
        return Call(tool, {"namespace": self._namespace, "key": _KEY, **arguments})

    async def _run(self, rounds: Rounds[_Result]) -> _Result:
        if isinstance(self.store, AsyncKeyValueStore):
            return await run_async(rounds, self.store, self._timeout)
        return await asyncio.to_thread(run, rounds, self.store, self._timeout)
