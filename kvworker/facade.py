"""What the synchronous facades have in common: the four operations as plain function calls."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, Self, cast

from celery.canvas import Signature

from kvworker.errors import InvalidRequestError
from kvworker.model import DeleteResult, GetResult, IncrementResult, JSONValue, OperationResult, SetResult
from kvworker.wire import Tool, check_arguments, described, encode_request, find_tool


class PendingResult(Protocol):
    """An operation that was submitted; ``operation_id`` makes asking again safe."""

    @property
    def operation_id(self) -> str:
        """The caller's idempotency key, or the one made for this operation."""

    def result(self, timeout: float | None = None) -> Any:
        """The operation's result: a ``GetResult``, ``SetResult``, ``DeleteResult`` or ``IncrementResult``.

        ``timeout`` is in seconds from now; without it the wait ends at the message's deadline. After an
        ``OperationTimeoutError`` it may be asked again.
        """


class KeyValueOperations(ABC):
    """``get``, ``set``, ``delete`` and ``increment`` on top of ``call_tool``.

    ``timeout`` is in seconds and bounds the whole call; None is the configured default. Every method
    raises what ``kvworker.errors`` draws.
    """

    @abstractmethod
    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""

    @abstractmethod
    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> PendingResult:
        """Start an operation now, to await its result later.

        ``timeout`` is the message's deadline, in seconds from now: no worker starts it afterwards.
        """

    @abstractmethod
    def signature(self, tool: str, arguments: Mapping[str, Any]) -> Signature:
        """A Celery signature, for chains, groups and chords of any application on the same broker.

        A ``kv_set`` without ``value`` stores the previous task's result; every other signature is
        immutable. It has no deadline. Its operation id is ``idempotency_key``, or else its task id.
        """

    @abstractmethod
    def close(self) -> None:
        """Release threads and connections; the store may not be used afterwards."""

    def get(self, namespace: str, key: str, *, timeout: float | None = None) -> GetResult:
        """Read an entry. A miss, or an expired entry, gives ``found=False``."""
        return cast(GetResult, self.call_tool(find_tool("kv_get"), {"namespace": namespace, "key": key}, timeout))

    def set(
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> SetResult:
        """Write an entry. Without ``ttl_seconds`` it does not expire, whatever it did before."""
        arguments = {
            "namespace": namespace,
            "key": key,
            "value": value,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(SetResult, self.call_tool(find_tool("kv_set"), arguments, timeout))

    def delete(
        self, namespace: str, key: str, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> DeleteResult:
        """Remove an entry. A miss, or an expired entry, gives ``deleted=False``."""
        arguments = {"namespace": namespace, "key": key, "idempotency_key": idempotency_key}
        return cast(DeleteResult, self.call_tool(find_tool("kv_delete"), arguments, timeout))

    def increment(
        self,
        namespace: str,
        key: str,
        *,
        delta: int = 1,
        initial_value: int = 0,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> IncrementResult:
        """Add ``delta`` to a counter; a missing or expired one becomes ``initial_value + delta``.

        Without ``ttl_seconds`` a live counter keeps its TTL.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "delta": delta,
            "initial_value": initial_value,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(IncrementResult, self.call_tool(find_tool("kv_increment"), arguments, timeout))

    def call(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …): arguments as a dict in, the result as a dict out."""
        return self.call_tool(find_tool(tool), arguments, timeout).to_dict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def check_timeout(timeout: object, default_seconds: float) -> float:
    """The timeout of a call in seconds; more than a thread can wait (centuries) is cut to that.

    Raises:
        InvalidRequestError: it is not a finite number above 0.
    """
    if timeout is None:
        return default_seconds
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidRequestError(f"timeout must be a finite number of seconds above 0, not {timeout!r}")
    return float(min(timeout, threading.TIMEOUT_MAX))


def make_signature(app: Any, queue_name: str, tool_name: str, arguments: Mapping[str, Any]) -> Signature:
    """The Celery signature of an operation on a queue."""
    tool = find_tool(tool_name)
    checked = check_arguments(tool, arguments, missing_allowed=("value",))
    return app.signature(
        tool.task_name,
        kwargs=encode_request(checked, deadline=None),
        immutable=not (tool.name == "kv_set" and "value" not in checked),
        queue=queue_name,
        kwargsrepr=described(tool, checked),
    )
