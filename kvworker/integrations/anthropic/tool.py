"""Claude's memory tool: runs its commands on the facade that it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
from anthropic.types.beta import (
    BetaCacheControlEphemeralParam,
    BetaMemoryTool20250818CreateCommand,
    BetaMemoryTool20250818DeleteCommand,
    BetaMemoryTool20250818InsertCommand,
    BetaMemoryTool20250818RenameCommand,
    BetaMemoryTool20250818StrReplaceCommand,
    BetaMemoryTool20250818ViewCommand,
)

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.errors import InvalidRequestError, OperationRefusedError, PolicyDeniedError
from kvworker.integrations.anthropic.files import Files
from kvworker.integrations.rounds import Rounds, run, run_async
from kvworker.model import check_namespace, check_ttl


class KvworkerMemoryTool(BetaAbstractMemoryTool):
    """Claude's memory tool (``memory_20250818``) on a kvworker store. Closing the kvworker store remains your task.

    The file ``/memories/notes.md`` is the entry of that key in your namespace, and its text is the value. So each user
    or agent has a namespace with its own quota and policy, and other programs can read the files. Edits are atomic: if
    two agents edit one file at the same time, the second edit is tried again on the result of the first. A rename is
    one message, whole or not at all.

    A path must lie in ``/memories``. One that holds ``..``, also percent-encoded, or a backslash is refused.

    Claude reads why a command was refused, since the tool raises ``ToolError``: the command is wrong, the quota is
    full, or the persona may not do it. Other errors are those of ``kvworker.errors``, such as
    ``OperationTimeoutError``.
    """

    def __init__(
        self,
        store: KeyValueOperations,
        namespace: str,
        *,
        ttl_seconds: float | None = None,
        timeout: float | None = None,
        cache_control: BetaCacheControlEphemeralParam | None = None,
    ) -> None:
        """Make a memory tool.

        Args:
            store: The kvworker store to use. Closing it remains your task.
            namespace: The namespace of the files, such as ``memory:user-7``.
            ttl_seconds: The TTL that each write gives its file; None for no expiry.
            timeout: Seconds for each message; None for the store's own timeout.
            cache_control: Where Anthropic's prompt cache has a breakpoint.

        Raises:
            InvalidKeyError: The namespace is not valid.
            InvalidTTLError: The TTL is not a finite number of seconds above 0.
        """
        super().__init__(cache_control=cache_control)
        self.store = store
        self._files = Files(check_namespace(namespace), check_ttl(ttl_seconds))
        self._timeout = timeout

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Show a file's lines, or the names of what a directory holds."""
        return self._run(self._files.view(command))

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Create a file that does not exist."""
        return self._run(self._files.create(command))

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that occurs once in a file."""
        return self._run(self._files.str_replace(command))

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert a text after a line of a file."""
        return self._run(self._files.insert(command))

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory with all that it holds."""
        return self._run(self._files.delete(command))

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Rename a file, or a directory with all that it holds."""
        return self._run(self._files.rename(command))

    def clear_all_memory(self) -> str:
        """Delete all files of the namespace."""
        return self._run(self._files.clear())

    def _run(self, rounds: Rounds[str]) -> str:
        with _refusals_for_claude():
            return run(rounds, self.store, self._timeout)


class AsyncKvworkerMemoryTool(BetaAsyncAbstractMemoryTool):
    """``KvworkerMemoryTool`` for Anthropic's asynchronous client.

    Over an ``AsyncKeyValueStore`` it never blocks. Over another facade it runs in a thread.
    """

    def __init__(
        self,
        store: AsyncKeyValueStore | KeyValueOperations,
        namespace: str,
        *,
        ttl_seconds: float | None = None,
        timeout: float | None = None,
        cache_control: BetaCacheControlEphemeralParam | None = None,
    ) -> None:
        """Make a memory tool. The arguments and errors are those of ``KvworkerMemoryTool``."""
        super().__init__(cache_control=cache_control)
        self.store = store
        self._files = Files(check_namespace(namespace), check_ttl(ttl_seconds))
        self._timeout = timeout

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Show a file's lines, or the names of what a directory holds."""
        return await self._run(self._files.view(command))

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Create a file that does not exist."""
        return await self._run(self._files.create(command))

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that occurs once in a file."""
        return await self._run(self._files.str_replace(command))

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert a text after a line of a file."""
        return await self._run(self._files.insert(command))

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory with all that it holds."""
        return await self._run(self._files.delete(command))

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Rename a file, or a directory with all that it holds."""
        return await self._run(self._files.rename(command))

    async def clear_all_memory(self) -> str:
        """Delete all files of the namespace."""
        return await self._run(self._files.clear())

    async def _run(self, rounds: Rounds[str]) -> str:
        with _refusals_for_claude():
            if isinstance(self.store, AsyncKeyValueStore):
                return await run_async(rounds, self.store, self._timeout)
            return await asyncio.to_thread(run, rounds, self.store, self._timeout)


@contextmanager
def _refusals_for_claude() -> Iterator[None]:
    try:
        yield
    except (OperationRefusedError, InvalidRequestError, PolicyDeniedError) as error:
        raise ToolError(f"Nothing was changed: {error}") from error
