"""The collecting part of a pipeline: the facade's methods, whose calls are checked and kept for sending."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from kvworker.client.base import KeyValueOperations
from kvworker.client.calls import Call, describe_call
from kvworker.client.methods import FacadeMethods
from kvworker.client.pipeline.batches import PipelinedResult
from kvworker.client.pipeline.delivery import Delivery
from kvworker.client.timeouts import check_timeout
from kvworker.errors import InvalidRequestError
from kvworker.model import (
    MAX_OPERATION_ID_BYTES,
    EncodedValue,
    check_flag,
    check_operation_id,
    new_operation_id,
)
from kvworker.tools import check_arguments
from kvworker.tools.policy import Policy

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: The most bytes that a batch's name adds to the pipeline's key.
_BATCH_NAME_BYTES: Final = 15


def _collected(
    method: Callable[Concatenate[FacadeMethods, _Arguments], _Result],
) -> Callable[Concatenate[Collector, _Arguments], PipelinedResult[_Result]]:
    """Turn a facade method into one that collects the call and returns a handle."""

    def _collect(
        pipeline: Collector, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> PipelinedResult[_Result]:
        return pipeline.collect(describe_call(method, *args, **kwargs))

    update_wrapper(_collect, method)
    return _collect


class Collector:
    """A pipeline except for the waiting, which differs between threads and coroutines.

    Args:
        store: The store that sends the messages.
        idempotency_key: The pipeline's key. None means a generated one.
        raise_on_error: Makes a flush raise ``PipelineError`` if operations failed.
        timeout: Bounds each flush, in seconds. None means the configured default.
    """

    get = _collected(FacadeMethods.get)
    set = _collected(FacadeMethods.set)
    delete = _collected(FacadeMethods.delete)
    increment = _collected(FacadeMethods.increment)
    touch = _collected(FacadeMethods.touch)
    persist = _collected(FacadeMethods.persist)
    acquire_permit = _collected(FacadeMethods.acquire_permit)
    renew_permit = _collected(FacadeMethods.renew_permit)
    release_permit = _collected(FacadeMethods.release_permit)
    rate_limit = _collected(FacadeMethods.rate_limit)
    append = _collected(FacadeMethods.append)
    merge = _collected(FacadeMethods.merge)
    get_and_delete = _collected(FacadeMethods.get_and_delete)
    step_begin = _collected(FacadeMethods.step_begin)
    step_renew = _collected(FacadeMethods.step_renew)
    step_finish = _collected(FacadeMethods.step_finish)

    def __init__(
        self, store: KeyValueOperations, idempotency_key: str | None, *, raise_on_error: bool, timeout: float | None
    ) -> None:
        store.check_may_wait()
        self.idempotency_key = _check_key(idempotency_key)
        self._store = store
        self._policy = Policy(store.settings.policies)
        self._raise_on_error = check_flag("raise_on_error", raise_on_error)
        seconds = check_timeout(timeout, store.settings.facade.timeout_seconds)
        self._delivery = Delivery(store, self.idempotency_key, seconds)
        self._has_ended = False

    def collect(self, call: Call) -> PipelinedResult[Any]:
        """Check a call of a facade method and keep it for sending.

        Raises:
            InvalidRequestError: The arguments are wrong, or the pipeline has ended; nothing was collected.
            PolicyDeniedError: The persona may not call this; nothing was collected.
        """
        self.check_open()
        if call.timeout is not None:
            raise InvalidRequestError("an operation of a pipeline takes no timeout; give one to pipeline()")
        if call.arguments.get("idempotency_key") is not None:
            raise InvalidRequestError("an operation of a pipeline takes no idempotency_key; give one to pipeline()")
        arguments = check_arguments(call.tool, call.arguments)
        self._policy.admit(self._store.persona, call.tool, arguments)
        size_bytes = len(arguments["key"].encode())
        for name, argument in arguments.items():
            if isinstance(argument, EncodedValue):
                # A copy, since the caller may change its value before it is sent.
                arguments[name] = argument.copy()
                size_bytes += len(argument.text.encode())
        handle: PipelinedResult[Any] = PipelinedResult(call.tool, arguments)
        self._delivery.add(handle, size_bytes)
        return handle

    def flushing(self) -> Generator[tuple[Future[None], float], None, None]:
        """Flush in steps. Yields a future to wait for and the most seconds to wait."""
        self.check_open()
        self._store.check_may_wait()
        try:
            yield from self._delivery.deliver()
        except BaseException:
            self.end("the pipeline's flush was interrupted")
            raise
        self._delivery.report_failures(raise_on_error=self._raise_on_error)

    def end(self, reason: str) -> None:
        """Send nothing more, and give the operations without an outcome an error with this reason."""
        self._has_ended = True
        self._delivery.end(reason)

    def check_open(self) -> None:
        """Check that the pipeline can still be used.

        Raises:
            InvalidRequestError: It has ended.
        """
        if self._has_ended:
            raise InvalidRequestError("this pipeline has ended; make another with store.pipeline()")


def _check_key(idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return new_operation_id()
    size_bytes = len(check_operation_id(idempotency_key).encode())
    if size_bytes > (allowed := MAX_OPERATION_ID_BYTES - _BATCH_NAME_BYTES):
        raise InvalidRequestError(f"a pipeline's idempotency_key is at most {allowed} bytes of UTF-8, not {size_bytes}")
    return idempotency_key
