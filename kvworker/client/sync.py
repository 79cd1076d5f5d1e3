"""The synchronous facade: a plain function call that a worker carries out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from celery.canvas import Signature

from kvworker.client.base import KeyValueOperations
from kvworker.client.coalescing import MAX_DELAY_SECONDS
from kvworker.client.dispatcher import Dispatcher
from kvworker.client.pending_reply import PendingReply
from kvworker.client.pipeline import open_pipeline
from kvworker.client.signatures import make_signature
from kvworker.client.timeouts import check_timeout
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.client.watching import CallWatch, watch_call
from kvworker.errors import InvalidRequestError, KVStoreError
from kvworker.fork_safety import ProcessLocal
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.wire import check_persona
from kvworker.model import OperationResult
from kvworker.settings import Settings
from kvworker.tools import Tool, check_arguments, find_tool
from kvworker.tools.policy import Policy


class QueuedResult:
    """The result of an operation that was sent through the queue."""

    def __init__(self, reply: PendingReply, dispatcher: Dispatcher) -> None:
        self._reply = reply
        self._dispatcher = dispatcher

    @property
    def operation_id(self) -> str:
        """Your idempotency key, or else the task id. Repeat a call with it to apply it only once."""
        return self._reply.operation_id

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once there is an outcome: in the thread that reads it, or at once."""
        self._reply.future.add_done_callback(lambda _: callback())

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the operation's result and return it.

        Args:
            timeout: The longest wait in seconds. Without it the wait ends at the message's deadline.

        Raises:
            OperationTimeoutError: The result has not arrived, so the outcome is unknown. You may call this again.
            OperationExpiredError: A worker received the message after its deadline, so the operation was not applied.
            QueueUnavailableError: The broker never had the message, so the operation was not applied.
            KVStoreError: Any error that the worker raised.
        """
        self._dispatcher.check_not_nested()
        wait_seconds = check_timeout(timeout, self._reply.remaining_seconds())
        try:
            if self._reply.is_held:
                wait_seconds -= self._wait_while_held(wait_seconds)
            meta = self._reply.future.result(wait_seconds)
        except FutureTimeoutError:
            raise self._reply.timeout_error() from None
        except KVStoreError:
            raise
        except BaseException as error:
            self._reply.note_interruption(error)
            raise
        return self._reply.outcome(meta)

    def _wait_while_held(self, wait_seconds: float) -> float:
        """Wait for other calls to coalesce with, then have the call sent. Return the longest time that this took."""
        self._reply.is_held = False
        seconds = min(MAX_DELAY_SECONDS, wait_seconds)
        try:
            with suppress(FutureTimeoutError):
                self._reply.future.exception(seconds)
        finally:
            # Even if interrupted: sent later, it could overtake a later call of the same caller.
            if not self._reply.future.done():
                self._dispatcher.flush_held()
        return seconds


class _SharedDispatcher:
    """The dispatcher that a store and its views share: one in each process, made on first use."""

    def __init__(self, settings: Settings, observer: CallObserver | None) -> None:
        self._settings = settings
        self._observer = observer
        self._dispatcher = ProcessLocal(self._make)
        self._closed = False

    def get(self) -> Dispatcher:
        """Return this process's dispatcher, made on first use; a closed one raises."""
        self._check_open()
        return self._dispatcher.get()

    def close(self) -> None:
        """Close this process's dispatcher for good."""
        self._closed = True
        # This waits for a thread that is making one.
        dispatcher = self._dispatcher.pop()
        if dispatcher is not None:
            dispatcher.close()

    def _make(self) -> Dispatcher:
        self._check_open()
        return Dispatcher(self._settings, self._observer)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequestError("the store is closed; make a new one")


class KeyValueStore(KeyValueOperations):
    """The key-value store, used through the queue.

    You may share it between threads. A forked child process makes its own connections on first use. Call ``close``, or
    use the store as a context manager, to stop its threads.

    Args:
        settings: The configuration, its file, or a mapping in the file's layout.
        persona: The name under which its calls are checked. None means the default persona.
        observer: Observes each call, as ``kvworker.ops.metrics.CallMetrics`` does. Views of the store and forked
            children have it too. A pickled or copied store has none.
    """

    def __init__(
        self,
        settings: Settings | str | Path | Mapping[str, Any],
        persona: str | None = None,
        *,
        observer: CallObserver | None = None,
    ) -> None:
        self.settings = Settings.of(settings)
        self.persona = check_persona(persona)
        self._policy = Policy(self.settings.policies)
        self._observer = observer
        self._dispatcher = _SharedDispatcher(self.settings, observer)
        self._is_bounded = True

    def __reduce__(self) -> tuple[type[Self], tuple[Settings, str | None]]:
        """Make a pickled or copied store a new one with the same settings and persona."""
        return type(self), (self.settings, self.persona)

    @classmethod
    def from_config(
        cls,
        path: str | Path | Mapping[str, Any] | None = None,
        *,
        persona: str | None = None,
        observer: CallObserver | None = None,
    ) -> Self:
        """Make the store that a configuration file describes.

        Args:
            path: The file, or a mapping in its layout. None means the file that ``Settings.load`` finds, which is also
                the one that commands use.
            persona: The name under which the store's calls are checked.
            observer: Observes each call.

        Raises:
            ConfigurationError: The file is missing or wrong.
        """
        return cls(Settings.of(path), persona, observer=observer)

    pipeline = open_pipeline

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> QueuedResult:
        """Send an operation now and return its pending result; see ``KeyValueOperations.submit``."""
        dispatcher, seconds, found = self.dispatcher(), self.timeout_seconds(timeout), find_tool(tool)
        with self.watch(found) as watch:
            if self._is_bounded and dispatcher.may_wait_for_turn():
                with dispatcher.in_flight.turn(seconds) as turn:
                    turn.reply = reply = self.send(found, arguments, turn.seconds)
            else:
                reply = self.send(found, arguments, seconds)
                dispatcher.in_flight.add(reply)
            watch.submitted(reply)
        return QueuedResult(reply, dispatcher)

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and wait for its result."""
        with self.watch(tool) as watch:
            self.check_may_wait()
            dispatcher = self.dispatcher()
            with dispatcher.in_flight.turn(self.timeout_seconds(timeout)) as turn:
                turn.reply = self.send(tool, arguments, turn.seconds, may_coalesce=True)
                result: OperationResult = QueuedResult(turn.reply, dispatcher).result()
            watch.succeeded(result)
        return result

    def watch(self, tool: Tool) -> CallWatch:
        """Begin to follow a call for the store's observer, if it has one."""
        return watch_call(self._observer, tool)

    def check_may_wait(self) -> None:
        """Check that a wait for a result could end.

        Raises:
            NestedCallError: The caller is a task on a worker that consumes the operations' queue.
            InvalidRequestError: The store is closed.
        """
        self.dispatcher().check_not_nested()

    def watch_permits(self, namespace: str, key: str, wake: Callable[[], object]) -> PermitWatch:
        """Call ``wake`` when a permit of a semaphore may be free; see ``KeyValueOperations.watch_permits``."""
        return self.dispatcher().watch_permits(namespace, key, wake)

    def unbounded(self) -> Self:
        """Return a view of this store whose ``submit`` never waits for a turn, for use in an event loop."""
        view = object.__new__(type(self))
        vars(view).update(vars(self), _is_bounded=False)
        return view

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """Return a Celery signature of an operation; see ``KeyValueOperations.signature``."""
        return make_signature(self, self.dispatcher().app, tool, arguments, valid_seconds)

    def probe(self, timeout: float) -> QueuedResult:
        """Send an operation that needs no persona, to see whether a worker answers.

        Any answer shows that a worker runs, even a ``PolicyDeniedError``, or the ``UnsupportedMessageError`` of a
        worker that is older than this program.
        """
        dispatcher = self.dispatcher()
        arguments = {"namespace": "kvworker", "limit": 1}
        return QueuedResult(dispatcher.dispatch(find_tool("kv_list_keys"), arguments, timeout), dispatcher)

    def close(self) -> None:
        """Stop the threads and close the connections of this process."""
        self._dispatcher.close()

    def dispatcher(self) -> Dispatcher:
        """Return the dispatcher of this process, made on first use.

        Raises:
            InvalidRequestError: The store is closed.
        """
        return self._dispatcher.get()

    def timeout_seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call in seconds.

        Args:
            timeout: The caller's timeout. None means the configured default.

        Raises:
            InvalidRequestError: The timeout is not a finite number above 0.
        """
        return check_timeout(timeout, self.settings.facade.timeout_seconds)

    def send(self, tool: Tool, arguments: Mapping[str, Any], seconds: float, **options: bool) -> PendingReply:
        """Check a call and send it.

        Args:
            tool: The tool to run.
            arguments: Its arguments, not checked yet.
            seconds: The message's deadline in seconds from now.
            options: Those of ``Dispatcher.dispatch``.

        Raises:
            InvalidRequestError: The arguments are wrong, or the store is closed.
            PolicyDeniedError: The persona may not call this.
        """
        checked = check_arguments(tool, arguments)
        persona = self._policy.admit(self.persona, tool, checked)
        return self.dispatcher().dispatch(tool, checked, seconds, persona, **options)
