"""The interface that all synchronous stores share, with a queue or without one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from celery.canvas import Signature

from kvworker.client.durable_methods import DurableMethods
from kvworker.client.lease_methods import LeaseMethods
from kvworker.client.methods import FacadeMethods
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.messaging.wire import check_persona
from kvworker.tools import find_tool

if TYPE_CHECKING:
    from kvworker.settings import Settings


class PendingResult(Protocol):
    """The result of a submitted operation."""

    @property
    def operation_id(self) -> str:
        """Your idempotency key, or else the generated operation id. Repeat a call with it to apply it only once."""

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once ``result`` would no longer wait: in any thread, or at once if that is so already."""

    def result(self, timeout: float | None = None) -> Any:
        """Return what the facade's method of the same name returns, or raise its error.

        You may call it again after an ``OperationTimeoutError``.

        Args:
            timeout: The longest wait in seconds. Without it the wait ends at the message's deadline.
        """


class KeyValueOperations(DurableMethods, LeaseMethods, FacadeMethods):
    """The operations as plain function calls, together with pending results, signatures and personas."""

    #: The configuration.
    settings: Settings
    #: The name under which calls are checked where policies are configured. None means the default persona.
    persona: str | None = None

    @abstractmethod
    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> PendingResult:
        """Start an operation now and return its pending result.

        Args:
            tool: A tool's name (``kv_get`` …).
            arguments: The tool's arguments.
            timeout: The message's deadline in seconds from now. A worker does not start the operation after it.
        """

    @abstractmethod
    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """Return a Celery signature, for chains of any application on the same broker.

        It also joins groups and chords of Celery's current application, if that has the same broker and results.

        A ``kv_set`` without ``value`` stores the previous task's result. Every other signature is immutable. The
        operation id is ``idempotency_key``, or else the task id.

        Where a signing key is configured the message is signed, except for a previous task's result. The task id is not
        known yet and so is not signed either. Give an ``idempotency_key``, and a ``valid_seconds`` below the time for
        which operation ids are remembered; otherwise anyone who can read the queue can replay the message.

        Args:
            tool: A tool's name (``kv_get`` …).
            arguments: The tool's arguments.
            valid_seconds: A worker does not start the operation later than this many seconds from now. None sets no
                deadline.

        Raises:
            ConfigurationError: ``task_always_eager`` is set in Celery's current application.
        """

    @abstractmethod
    def close(self) -> None:
        """Release threads and connections. Do not use the store afterwards."""

    @abstractmethod
    def check_may_wait(self) -> None:
        """Check that a wait for a result could end.

        Raises:
            NestedCallError: The caller is a task that runs on a worker which would have to give the result.
        """

    def watch_permits(self, namespace: str, key: str, wake: Callable[[], object]) -> PermitWatch:  # noqa: ARG002
        """Call ``wake`` when a permit of a semaphore may be free, where the store can tell.

        It is called in any thread, perhaps without a reason, and not after each release.
        """
        return PermitWatch()

    def as_persona(self, persona: str) -> Self:
        """Return a view of this store for a persona.

        The view shares the store's connections and threads. Closing one closes both. Each call
        checks that the persona exists.

        Raises:
            InvalidRequestError: ``persona`` is not a valid name.
        """
        view = object.__new__(type(self))
        vars(view).update(vars(self), persona=check_persona(persona))
        return view

    def call(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …), with its arguments as a dict, and return its result as a dict."""
        return self.call_tool(find_tool(tool), arguments, timeout).to_dict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
