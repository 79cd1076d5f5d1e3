"""What the facades have in common: the operations as plain function calls."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from celery.canvas import Signature

from kvworker.errors import InvalidRequestError
from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.wire import check_persona, described, encode_request
from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    KeyList,
    LedgerUsage,
    NamespaceList,
    OperationResult,
    QuotaResult,
    SetResult,
    TouchResult,
)
from kvworker.tools import Tool, check_arguments, find_tool
from kvworker.tools.policy import Policy

if TYPE_CHECKING:
    from kvworker.settings import Settings


class PendingResult(Protocol):
    """An operation that was submitted; ``operation_id`` makes asking again safe."""

    @property
    def operation_id(self) -> str:
        """The caller's idempotency key, or the one made for this operation."""

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call back once the outcome is there and ``result`` would not wait: in any thread, or at once."""

    def result(self, timeout: float | None = None) -> Any:
        """The operation's result, as the method of the same name gives it.

        ``timeout`` is in seconds from now; without it the wait ends at the message's deadline. After an
        ``OperationTimeoutError`` it may be asked again.
        """


class KeyValueOperations(ABC):
    """The operations on top of ``call_tool``.

    ``timeout`` is in seconds and bounds the whole call; None is the configured default. ``idempotency_key``
    names a write, so that it is applied once however often it is called. Every method raises what
    ``kvworker.errors`` draws. ``persona`` is who calls, where policies are configured.
    """

    settings: Settings
    persona: str | None = None

    @abstractmethod
    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""

    @abstractmethod
    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> PendingResult:
        """Start an operation now, to await its result later.

        ``timeout`` is the message's deadline, in seconds from now: no worker starts it afterwards.
        """

    @abstractmethod
    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """A Celery signature, for chains, groups and chords of any application on the same broker.

        A ``kv_set`` without ``value`` stores the previous task's result; every other signature is
        immutable. Its operation id is ``idempotency_key``, or else its task id. No worker starts it later than
        ``valid_seconds`` from now; None is no deadline.

        Where a signing key is configured it is signed, but for that previous result. Its task id is not
        known yet, so give an ``idempotency_key``, and ``valid_seconds`` below the time that operation ids are
        remembered: otherwise whoever can read the queue can have it applied again.
        """

    @abstractmethod
    def close(self) -> None:
        """Release threads and connections; the store may not be used afterwards."""

    @abstractmethod
    def check_may_wait(self) -> None:
        """Refuse to wait for a result that could never come.

        Raises:
            NestedCallError: the caller is a task, and its own worker would have to give it.
        """

    def as_persona(self, persona: str) -> Self:
        """A view of this store for a persona. It shares connections and threads; closing one closes both.

        Raises:
            InvalidRequestError: it is no name at all. Whether there is such a persona is checked by each call.
        """
        view = object.__new__(type(self))
        vars(view).update(vars(self), persona=check_persona(persona))
        return view

    def get(self, namespace: str, key: str, *, timeout: float | None = None) -> GetResult:
        """Read an entry. A miss, or an expired entry, gives ``found=False``."""
        return cast(GetResult, self._call("kv_get", timeout, namespace=namespace, key=key))

    def set(  # noqa: PLR0913 - the options of a write
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        expected_version: int | None = None,
        if_absent: bool = False,
        keep_ttl: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> SetResult:
        """Write an entry. Without ``ttl_seconds`` it does not expire, unless ``keep_ttl`` leaves its expiry.

        With ``expected_version`` it is written only if it still is of that version, with ``if_absent`` only
        if there is none; else ``VersionConflictError``, and nothing is changed.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "value": value,
            "ttl_seconds": ttl_seconds,
            "expected_version": expected_version,
            "if_absent": if_absent,
            "keep_ttl": keep_ttl,
            "idempotency_key": idempotency_key,
        }
        return cast(SetResult, self._call("kv_set", timeout, **arguments))

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove an entry, with ``expected_version`` only if it still is of that version."""
        arguments = {
            "namespace": namespace,
            "key": key,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
        }
        return cast(DeleteResult, self._call("kv_delete", timeout, **arguments))

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
        return cast(IncrementResult, self._call("kv_increment", timeout, **arguments))

    def touch(
        self,
        namespace: str,
        key: str,
        ttl_seconds: float,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> TouchResult:
        """Let a live entry expire ``ttl_seconds`` from now. A miss gives ``found=False``."""
        arguments = {
            "namespace": namespace,
            "key": key,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(TouchResult, self._call("kv_touch", timeout, **arguments))

    def persist(
        self, namespace: str, key: str, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> TouchResult:
        """Let a live entry stay for good. A miss gives ``found=False``."""
        arguments = {"namespace": namespace, "key": key, "idempotency_key": idempotency_key}
        return cast(TouchResult, self._call("kv_persist", timeout, **arguments))

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        include_values: bool = False,
        timeout: float | None = None,
    ) -> KeyList:
        """A page of the namespace's live entries in order of their keys; go on with its ``next_cursor``.

        ``limit`` is at most 1000. A page with values ends early once they reach 4 MiB. No snapshot is held
        between pages: what is written meanwhile is listed or not.
        """
        arguments = {
            "namespace": namespace,
            "prefix": prefix,
            "limit": limit,
            "cursor": cursor,
            "include_values": include_values,
        }
        return cast(KeyList, self._call("kv_list_keys", timeout, **arguments))

    def list_namespaces(
        self,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> NamespaceList:
        """A page of the namespaces that have entries, in order, each with its usage."""
        return cast(NamespaceList, self._call("kv_list_namespaces", timeout, prefix=prefix, limit=limit, cursor=cursor))

    def clear(self, namespace: str, *, idempotency_key: str | None = None, timeout: float | None = None) -> ClearResult:
        """Remove every entry of a namespace in one transaction."""
        return cast(ClearResult, self._call("kv_clear", timeout, namespace=namespace, idempotency_key=idempotency_key))

    def usage(self, namespace: str | None = None, *, timeout: float | None = None) -> LedgerUsage:
        """What a namespace, or without one the whole store, uses of its quota."""
        return cast(LedgerUsage, self._call("kv_usage", timeout, namespace=namespace))

    def set_quota(
        self,
        namespace: str,
        quota_bytes: int | None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> QuotaResult:
        """Give a namespace a quota of its own in bytes; None gives the configured one back."""
        arguments = {"namespace": namespace, "quota_bytes": quota_bytes, "idempotency_key": idempotency_key}
        return cast(QuotaResult, self._call("kv_set_quota", timeout, **arguments))

    def batch(
        self,
        namespace: str,
        operations: Sequence[Mapping[str, Any]],
        *,
        atomic: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> BatchResult:
        """Run up to 1000 operations of one namespace in their order, in one message and one transaction.

        Each is a dict with its ``tool`` (``kv_get``, ``kv_set``, ``kv_delete``, ``kv_increment``, ``kv_touch``,
        ``kv_persist``) and that tool's other arguments. An atomic batch applies all or raises
        ``BatchRefusedError`` (of a quota: the quota's error); else each operation has its result or its error.
        """
        arguments = {
            "namespace": namespace,
            "operations": operations,
            "atomic": atomic,
            "idempotency_key": idempotency_key,
        }
        return cast(BatchResult, self._call("kv_batch", timeout, **arguments))

    def call(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …): arguments as a dict in, the result as a dict out."""
        return self.call_tool(find_tool(tool), arguments, timeout).to_dict()

    def _call(self, tool: str, timeout: float | None, **arguments: Any) -> OperationResult:
        return self.call_tool(find_tool(tool), arguments, timeout)

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


def make_signature(
    store: KeyValueOperations, app: Any, tool_name: str, arguments: Mapping[str, Any], valid_seconds: float | None
) -> Signature:
    """The Celery signature of an operation on the store's queue."""
    settings = store.settings
    tool = find_tool(tool_name)
    checked = check_arguments(tool, arguments, missing_allowed=("value",))
    policy = Policy(settings.policies)
    deadline = None if valid_seconds is None else time.time() + check_timeout(valid_seconds, 0.0)
    payload = encode_request(checked, deadline=deadline, persona=policy.admit(store.persona, tool, checked))
    return app.signature(
        tool.task_name,
        kwargs=MessageSigner(settings.policies).sign(tool, payload),
        immutable=not (tool.name == "kv_set" and "value" not in checked),
        queue=settings.queue.queue_name,
        serializer=app.conf.task_serializer,
        kwargsrepr=described(tool, checked),
    )
