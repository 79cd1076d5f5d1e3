"""Running an operation in a worker: if policy allows it, before its deadline, a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from celery import Celery, Task
from celery.utils.log import get_task_logger
from redis.exceptions import RedisError
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import Adapters
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.errors import (
    ConfigurationError,
    InvalidRequestError,
    KVStoreError,
    OperationExpiredError,
    OperationTimeoutError,
    RedeliveryLimitError,
    SchemaError,
    StoreUnavailableError,
)
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.observer import Event, Observer
from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.wake_ups import freed_by
from kvworker.messaging.wire import REDELIVERY_COUNTS, Request, decode_many, decode_request, encode_result
from kvworker.model import OperationResult
from kvworker.retries import BACKOFF
from kvworker.settings import Settings
from kvworker.settings.urls import messaging_system
from kvworker.tools import STEP_TOOLS, Tool
from kvworker.tools.policy import Policy
from kvworker.wording import counted
from kvworker.worker.execution import apply_many, execute
from kvworker.worker.reporting import TaskReporter

logger = get_task_logger(__name__)

_SINGLE_KEY_TOOLS = frozenset(tool.name for tool in STEP_TOOLS)


class Runtime:
    """The state and the behaviour that the task bodies share in a worker process.

    Attributes:
        app, settings, adapters: The worker's application, its settings, and the adapters of this process.
        on_unavailable: Called when an operation failed because its adapter cannot serve.
        observer: Observes the end of each operation, and the other events of this process.
    """

    def __init__(self, app: Celery, settings: Settings, observer: Observer | None = None) -> None:
        self.app = app
        self.settings = settings
        self.adapters = Adapters(settings)
        self.on_unavailable: Callable[[], object] = int
        self.observer = observer or Observer()
        self._policy = Policy(settings.policies)
        self._signer = MessageSigner(settings.policies)
        self._clock = ServerClock(app.backend.server_time)
        self._messaging_system = messaging_system(settings.queue.broker_url)
        self._longest_generated_seconds = settings.generated_id_retention_seconds / 2

    def run_operation(
        self, task_request: Any, tool: Tool, parents: tuple[Any, ...], payload: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the operation that a message requests.

        Args:
            task_request: Celery's request of the task.
            tool: The tool to run.
            parents: The result of the previous task of a chain, if there is one.
            payload: The message's keyword arguments.

        Returns:
            The result as a dict.

        Raises:
            KVStoreError: The operation was refused, was too late, or failed.
        """
        if task_request.id is None:
            raise InvalidRequestError(
                f"{tool.name} does not run inside another task, as in a map, a starmap or chunks: make a group of"
                " signatures, or call kv_batch"
            )
        request = None
        with self._reporter(task_request) as reporter:
            try:
                request = self._admitted(tool, parents, payload, task_request.id)
                result = self._run(task_request.id, request, redelivered=reporter.is_redelivered)
            except Exception as error:
                reporter.failed(tool, request, error)
                raise
            reporter.succeeded(request, result)
        self.app.backend.tell_freed(freed_by(result))
        return encode_result(result)

    def _reporter(self, task_request: Any) -> TaskReporter:
        return TaskReporter(task_request, self.observer, self._clock, self._messaging_system)

    def _run(self, task_id: str, request: Request, *, redelivered: bool) -> OperationResult:
        tool = request.tool
        if redelivered:
            self._bound_redeliveries(task_id, request)
        try:
            if self._is_late(request):
                self._refuse_late(request, redelivered=redelivered)
            with attempt(task_id, partial(self._check_in_time, request)):
                return self._execute(request)
        except (ConfigurationError, SchemaError) as error:
            self._note_failure()
            # Not the caller's fault: the worker's operator should see it.
            logger.error("%s failed: %s", tool.name, error)  # noqa: TRY400 - a traceback adds nothing
            if redelivered and tool.writes:
                # Alone it would mean that nothing was done, but an earlier delivery may have been applied.
                detail = f"an earlier delivery of the message may have been applied, and then {error}"
                raise StoreUnavailableError(detail, request.operation_id) from error
            raise
        except StoreUnavailableError as error:
            operation_id = request.operation_id if tool.writes else ""
            raise StoreUnavailableError(error.detail, operation_id) from error

    def run_coalesced(self, task_request: Any, payload: dict[str, Any]) -> dict[str, Any]:
        """Apply the coalesced calls of several callers, as far as one call of an adapter can.

        A call without a result here is sent again individually, which reports its error or retries until its
        deadline. So a redelivery can ignore the first attempt and apply nothing.

        Args:
            task_request: Celery's request of the task.
            payload: The message's keyword arguments.

        Returns:
            A dict whose ``results`` holds results by the calls' task ids.
        """
        with self._reporter(task_request) as reporter:
            calls = decode_many(payload)
            requests = {} if reporter.is_redelivered else self._coalesced_requests(calls)
            results = self._applied(requests)
            reporter.applied_many(len(calls), requests, results)
        return {"results": {task_id: encode_result(result) for task_id, result in results.items()}}

    def _applied(self, requests: Mapping[str, Request]) -> dict[str, OperationResult]:
        """Apply requests as far as one call of each adapter can, and return the results by task ids."""
        results: dict[str, OperationResult] = {}
        for adapter, task_ids in self._by_adapter(requests).items():
            try:
                applied = apply_many(adapter, [requests[task_id] for task_id in task_ids])
            except StoreUnavailableError:
                self.observer.happened(Event.DATABASE_FAILED)
            except KVStoreError:
                continue
            else:
                done = zip(task_ids, applied, strict=True)
                results |= {task_id: result for task_id, result in done if result is not None}
        return results

    def _note_failure(self) -> None:
        """Count a failure of the database, and have the adapters checked."""
        self.observer.happened(Event.DATABASE_FAILED)
        self.on_unavailable()

    def _coalesced_requests(self, calls: Mapping[str, tuple[Tool, dict[str, Any]]]) -> dict[str, Request]:
        """Return the calls of a coalesced message that can be applied together, by their task ids."""
        requests: dict[str, Request] = {}
        for task_id, (tool, call) in calls.items():
            with suppress(KVStoreError):
                request = self._admitted(tool, (), call, task_id)
                if tool.name in _SINGLE_KEY_TOOLS and not self._is_late(request):
                    requests[task_id] = request
        return requests

    def _by_adapter(self, requests: Mapping[str, Request]) -> dict[KeyValueStoreAdapter, list[str]]:
        groups: dict[KeyValueStoreAdapter, list[str]] = {}
        for task_id, request in requests.items():
            with suppress(KVStoreError):
                groups.setdefault(self._adapter(request), []).append(task_id)
        return groups

    def _admitted(self, tool: Tool, parents: tuple[Any, ...], payload: dict[str, Any], task_id: str) -> Request:
        """Return the operation of a message after checking that it is authentic and allowed."""
        self._signer.authenticate(tool, payload)
        request = decode_request(tool, parents, payload, task_id=task_id)
        persona = self._policy.admit(request.persona, tool, request.arguments)
        return replace(request, persona=persona, operation_id=self._retained_id(request))

    def _retained_id(self, request: Request) -> str:
        """Return the operation id, as one of the caller's if its record must be kept for longer than generated ones."""
        operation_id = request.operation_id
        if request.deadline is None or request.deadline - self._clock.now() <= self._longest_generated_seconds:
            return operation_id
        return str(operation_id)

    def _adapter(self, request: Request) -> KeyValueStoreAdapter:
        return self.adapters.of(self._policy.provider_of(request.persona))

    def _execute(self, request: Request) -> OperationResult:
        give_up_at = self._clock.now() + self.settings.queue.retry_seconds
        if request.deadline is not None:
            give_up_at = min(give_up_at, request.deadline)
        try:
            return self._execute_once(request)
        except StoreUnavailableError as error:
            self._note_failure()
            return self._retry(request, error, give_up_at)

    def _execute_once(self, request: Request) -> OperationResult:
        return execute(self._adapter(request), request, self._policy.visible(request.persona))

    def _retry(self, request: Request, first_error: StoreUnavailableError, give_up_at: float) -> OperationResult:
        """Retry while the database is unavailable, until ``give_up_at``: the deadline, or ``retry_seconds`` at most."""

        def attempt_again() -> OperationResult:
            """Run the request, but first repeat the failure of the attempt that was already made."""
            if retrying.statistics["attempt_number"] == 1:
                # The first attempt was made before: most operations succeed and never pay for a retry policy.
                raise first_error
            return self._execute_once(request)

        def is_too_late(state: RetryCallState) -> bool:
            """Tell whether the next attempt would start after the time to give up."""
            return self._clock.now() + state.upcoming_sleep >= give_up_at

        def log(state: RetryCallState) -> None:
            """Log the failure and the pause before the next attempt."""
            error = state.outcome.exception() if state.outcome else None
            self.observer.happened(Event.RETRIED)
            logger.warning("%s: %s; trying again in %.2f s", request.tool.name, error, state.upcoming_sleep)

        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            wait=BACKOFF,
            stop=is_too_late,
            before_sleep=log,
            reraise=True,
        )
        try:
            return retrying(attempt_again)
        except (ConfigurationError, SchemaError) as error:
            # Alone it would mean that nothing was done, but an earlier attempt may have been applied.
            logger.error("%s failed: %s", request.tool.name, error)  # noqa: TRY400 - a traceback adds nothing
            raise StoreUnavailableError(f"{first_error.detail}, and then {error}", request.operation_id) from error

    def _is_late(self, request: Request) -> bool:
        if request.deadline is None:
            return False
        self._clock.keep()
        return self._clock.now() >= request.deadline

    def _check_in_time(self, request: Request) -> None:
        if self._is_late(request):
            raise OperationTimeoutError(request.operation_id, "its worker stood still, and its deadline has passed")

    def _refuse_late(self, request: Request, *, redelivered: bool) -> None:
        """Refuse a message past its deadline, unless its operation was already applied.

        An earlier delivery may have applied it, or may still do so. Only a first delivery without a record is known
        not to be applied.
        """
        if self._was_applied(request):
            return
        if redelivered and request.tool.writes:
            raise OperationTimeoutError(request.operation_id, "redelivered after its deadline")
        raise OperationExpiredError(request.operation_id)

    def _was_applied(self, request: Request) -> bool:
        if not request.tool.writes:
            return False
        return self._adapter(request).was_applied(request.arguments["namespace"], request.operation_id)

    def _bound_redeliveries(self, task_id: str, request: Request) -> None:
        limit = self.settings.queue.max_redeliveries
        if self._count_redelivery(task_id) > limit and not self._was_applied(request):
            count = counted(limit, "redelivery", "redeliveries")
            logger.error("%s given up after %s: %s", task_id, count, request.tool.name)
            raise RedeliveryLimitError(request.operation_id, count)

    def _count_redelivery(self, task_id: str) -> int:
        """Count in the result backend's Redis, which every worker can read."""
        key = f"{REDELIVERY_COUNTS}{task_id}"
        try:
            with self.app.backend.client.pipeline(transaction=False) as pipeline:
                pipeline.incr(key)
                pipeline.expire(key, int(self.settings.maintenance.operation_retention_seconds))
                return int(pipeline.execute()[0])
        except RedisError as error:
            logger.warning("a redelivery of %s could not be counted: %s", task_id, type(error).__name__)
            return 1


def runtime_of(task: Task) -> Runtime:
    """Return the runtime of the worker application that a task belongs to."""
    runtime: Runtime = task.app.runtime
    return runtime
