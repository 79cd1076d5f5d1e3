"""The store without a queue: the same operations, run in the caller's process.

It is for a user's tests and for single-process programs. It needs no broker and no worker, and never sweeps.
Expired entries are still invisible, and are purged when a quota needs their bytes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from celery.canvas import Signature

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.providers import Adapters
from kvworker.client.base import KeyValueOperations
from kvworker.client.pipeline import open_pipeline
from kvworker.client.signatures import make_signature
from kvworker.client.timeouts import check_timeout
from kvworker.client.watching import CallWatch, watch_call
from kvworker.errors import InvalidRequestError, KVStoreError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.wire import Request, check_persona
from kvworker.model import OperationResult, new_operation_id
from kvworker.settings import Settings
from kvworker.tools import Tool, check_arguments, find_tool
from kvworker.tools.policy import Policy
from kvworker.worker.execution import execute

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


class InlineResult:
    """A submitted operation that has already ended.

    Attributes:
        operation_id: The idempotency key that it was run with.
    """

    def __init__(self, operation_id: str, outcome: OperationResult | KVStoreError) -> None:
        self.operation_id = operation_id
        self._outcome = outcome

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` immediately."""
        callback()

    def tell(self, watch: CallWatch) -> None:
        """Tell a call's watch how the operation has ended."""
        if isinstance(self._outcome, KVStoreError):
            watch.failed(self._outcome)
        else:
            watch.succeeded(self._outcome)

    def result(self, timeout: float | None = None) -> Any:
        """Return the operation's result immediately, or raise its error.

        Args:
            timeout: Checked, and otherwise unused.
        """
        check_timeout(timeout, 0.0)
        if isinstance(self._outcome, KVStoreError):
            raise self._outcome
        return self._outcome


class InlineKeyValueStore(KeyValueOperations):
    """The key-value store in this process, on the configured adapter.

    A persona's operations run on the adapter of its provider, if it has one, as they do in a worker. ``timeout`` is
    checked and otherwise unused. The database bounds an operation's time (``statement_timeout_seconds``,
    ``busy_timeout_seconds``).

    Args:
        settings: The store's settings, their file, or a mapping in its layout. Without them, the store is in memory.
        persona: Whose rights each operation needs.
        adapter: The default adapter; without it, the one that the settings describe.
        observer: Observes each call, as ``kvworker.ops.metrics.CallMetrics`` does.
    """

    def __init__(
        self,
        settings: Settings | str | Path | Mapping[str, Any] | None = None,
        persona: str | None = None,
        *,
        adapter: KeyValueStoreAdapter | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        self.settings = Settings.from_mapping(_IN_MEMORY) if settings is None else Settings.of(settings)
        self.persona = check_persona(persona)
        self.adapter = adapter or create_kv_store_adapter(*self.settings.store.adapter_config())
        self._adapters = Adapters(self.settings, self.adapter)
        if adapter is None:
            # SQLite moves what it has logged into the database's file when the last connection is closed.
            weakref.finalize(self, self._adapters.close)
        self._policy = Policy(self.settings.policies)
        self._observer = observer
        self._closed = False

    @classmethod
    def from_config(
        cls,
        path: str | Path | Mapping[str, Any] | None = None,
        *,
        persona: str | None = None,
        observer: CallObserver | None = None,
    ) -> Self:
        """Open the store that a configuration file describes.

        Args:
            path: The file, or a mapping in its layout. None means the file that ``Settings.load`` finds, which is also
                the one that commands use.
            persona: Whose rights each operation needs.
            observer: Observes each call.

        Raises:
            ConfigurationError: The file is missing or invalid.
        """
        return cls(Settings.of(path), persona, observer=observer)

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation."""
        result: OperationResult = self._submit(tool, arguments, timeout).result()
        return result

    pipeline = open_pipeline

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> InlineResult:
        """Run an operation now and keep its outcome."""
        return self._submit(find_tool(tool), arguments, timeout)

    def check_may_wait(self) -> None:
        """Do nothing: an operation never waits for a worker."""

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """Make the signature that ``KeyValueStore.signature`` makes. Applying it needs a broker and a worker."""
        return make_signature(self, make_celery(self.settings), tool, arguments, valid_seconds)

    def close(self) -> None:
        """Close the adapters' connections. The end of the process does it too, unless you passed an adapter."""
        self._closed = True
        self._adapters.close()

    def _submit(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> InlineResult:
        with watch_call(self._observer, tool, queued=False) as watch:
            result = self._run(tool, arguments, timeout)
            result.tell(watch)
        return result

    def _run(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> InlineResult:
        if self._closed:
            raise InvalidRequestError("the store is closed; make a new one")
        check_timeout(timeout, 0.0)
        checked = check_arguments(tool, arguments)
        persona = self._policy.admit(self.persona, tool, checked)
        operation_id = checked.pop("idempotency_key", None) or new_operation_id()
        request = Request(tool, checked, operation_id, persona=persona)
        try:
            adapter = self._adapters.of(self._policy.provider_of(persona))
            return InlineResult(operation_id, execute(adapter, request, self._policy.visible(persona)))
        except KVStoreError as error:
            return InlineResult(operation_id, error)
