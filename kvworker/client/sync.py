"""The synchronous facade: a plain function call for what a worker does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from celery.canvas import Signature

from kvworker.client.base import KeyValueOperations, check_timeout, make_signature
from kvworker.client.coalescing import MAX_DELAY_SECONDS
from kvworker.client.dispatcher import Dispatcher, PendingReply
from kvworker.client.pipeline import open_pipeline
from kvworker.errors import InvalidRequestError
from kvworker.messaging.wire import check_persona
from kvworker.model import OperationResult
from kvworker.settings import Settings
from kvworker.tools import Tool, check_arguments, find_tool
from kvworker.tools.policy import Policy

# A fork waits until no thread is making a dispatcher: the child would inherit locks, this one and kombu's own
# (one for each cached property), that nobody there can ever release.
_making = threading.RLock()
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


class QueuedResult:
    """A submitted operation whose result comes through the queue."""

    def __init__(self, reply: PendingReply, dispatcher: Dispatcher) -> None:
        self._reply = reply
        self._dispatcher = dispatcher

    @property
    def operation_id(self) -> str:
        """The caller's idempotency key, or the task's id."""
        return self._reply.operation_id

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call back once there is an outcome, in the thread that reads it, or at once."""
        self._reply.future.add_done_callback(lambda _: callback())

    def result(self, timeout: float | None = None) -> Any:
        """The operation's result, within ``timeout`` seconds, or else by the message's deadline.

        Raises:
            OperationTimeoutError: no result yet, outcome unknown; may be asked again.
            OperationExpiredError: a worker reached it after its deadline, so it was not applied.
            QueueUnavailableError: the broker never had it, so it was not applied.
            KVStoreError: whatever the worker raised.
        """
        self._dispatcher.check_not_nested()
        wait_seconds = check_timeout(timeout, self._reply.remaining_seconds())
        if self._reply.is_held:
            wait_seconds -= self._wait_for_others(wait_seconds)
        try:
            meta = self._reply.future.result(wait_seconds)
        except FutureTimeoutError:
            raise self._reply.timed_out() from None
        return self._reply.outcome(meta)

    def _wait_for_others(self, wait_seconds: float) -> float:
        """Wait for a moment, and then have the call sent, if it was not; gives the seconds that it took at most."""
        self._reply.is_held = False
        seconds = min(MAX_DELAY_SECONDS, wait_seconds)
        try:
            with suppress(FutureTimeoutError):
                self._reply.future.exception(seconds)
        finally:
            # An interrupted call goes too, rather than later, after others of its caller's.
            if not self._reply.future.done():
                self._dispatcher.flush_coalesced()
        return seconds


class _Connections:
    """The ends of the queue that a store and its views share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # By process: a child keeps what it inherited, untouched, since those sockets belong to its parent.
        self._dispatchers: dict[int, Dispatcher] = {}
        self._closed = False

    def dispatcher(self) -> Dispatcher:
        self._check_open()
        found = self._dispatchers.get(os.getpid())
        return found or self._make()

    def close(self) -> None:
        with _making:
            self._closed = True
            dispatcher = self._dispatchers.pop(os.getpid(), None)
        if dispatcher is not None:
            dispatcher.close()

    def _make(self) -> Dispatcher:
        with _making:
            self._check_open()
            pid = os.getpid()
            return self._dispatchers.get(pid) or self._dispatchers.setdefault(pid, Dispatcher(self._settings))

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequestError("the store is closed; make a new one")


class KeyValueStore(KeyValueOperations):
    """The key-value store, through the queue, for a persona or, without one, for the default persona.

    Safe to share between threads, and after a fork: a child process makes its own connections on first
    use. ``close`` it, or use it as a context manager, to end its threads.
    """

    def __init__(self, settings: Settings, persona: str | None = None) -> None:
        self.settings = settings
        self.persona = check_persona(persona)
        self._policy = Policy(settings.policies)
        self._connections = _Connections(settings)

    def __reduce__(self) -> tuple[type[Self], tuple[Settings, str | None]]:
        """Pickled, copied or passed to a spawned process, it is a store of the same settings and persona."""
        return type(self), (self.settings, self.persona)

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, persona: str | None = None) -> Self:
        """The store that a configuration file describes; without a path, the one KVWORKER_CONFIG names.

        Raises:
            ConfigurationError: the file is missing or wrong.
        """
        return cls(Settings.load(path), persona)

    pipeline = open_pipeline

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> QueuedResult:
        """Start an operation now, to await its result later."""
        return self._submit(find_tool(tool), arguments, timeout)

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and await its result."""
        self.check_may_wait()
        call = QueuedResult(*self.send(tool, arguments, timeout, may_coalesce=True))
        result: OperationResult = call.result()
        return result

    def check_may_wait(self) -> None:
        """Refuse to wait inside a task for a worker that may be this very one.

        Raises:
            NestedCallError: the task runs on a worker that consumes the operations' queue.
            InvalidRequestError: the store is closed.
        """
        self.dispatcher().check_not_nested()

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """A Celery signature, for chains, groups and chords of any application on the same broker."""
        return make_signature(self, self.dispatcher().app, tool, arguments, valid_seconds)

    def probe(self, timeout: float) -> QueuedResult:
        """Ask a worker what there is, as nobody: any answer tells that it works, a ``PolicyDeniedError`` too.

        One that is older than this program, and does not know what it is asked, is an ``UnsupportedMessageError``.
        """
        dispatcher = self.dispatcher()
        arguments = {"namespace": "kvworker", "limit": 1}
        return QueuedResult(dispatcher.dispatch(find_tool("kv_list_keys"), arguments, timeout), dispatcher)

    def close(self) -> None:
        """Stop the threads and close the connections of this process."""
        self._connections.close()

    def dispatcher(self) -> Dispatcher:
        """The queue's end in this process, made on first use.

        Raises:
            InvalidRequestError: the store is closed.
        """
        return self._connections.dispatcher()

    def send(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        timeout: float | None,
        *,
        may_wait: bool = True,
        may_coalesce: bool = False,
    ) -> tuple[PendingReply, Dispatcher]:
        """Check a call and start it; the reply is resolved through the dispatcher, which see about the rest."""
        checked = check_arguments(tool, arguments)
        persona = self._policy.admit(self.persona, tool, checked)
        dispatcher = self.dispatcher()
        seconds = check_timeout(timeout, self.settings.facade.timeout_seconds)
        reply = dispatcher.dispatch(tool, checked, seconds, persona, may_wait=may_wait, may_coalesce=may_coalesce)
        return reply, dispatcher

    def _submit(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> QueuedResult:
        return QueuedResult(*self.send(tool, arguments, timeout))
