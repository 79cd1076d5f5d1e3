"""What a pipeline takes: the facade's methods, whose calls are checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from kvworker.client.base import KeyValueOperations, check_timeout
from kvworker.client.calls import Call, call_of
from kvworker.client.pipeline.batches import PipelinedResult
from kvworker.client.pipeline.delivery import Delivery
from kvworker.errors import InvalidRequestError
from kvworker.model import (
    MAX_OPERATION_ID_BYTES,
    check_flag,
    check_operation_id,
    decode_value,
    encode_value,
    new_operation_id,
)
from kvworker.tools import check_arguments
from kvworker.tools.policy import Policy

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: What a batch's own name may add to the pipeline's key.
_BATCH_NAME_BYTES: Final = 15


def _collected(
    method: Callable[Concatenate[KeyValueOperations, _Arguments], _Result],
) -> Callable[Concatenate[Collector, _Arguments], PipelinedResult[_Result]]:
    """The facade's method, collected instead of called: one definition for both."""

    def collect(
        pipeline: Collector, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> PipelinedResult[_Result]:
        return pipeline.collect(call_of(method, *args, **kwargs))

    update_wrapper(collect, method)
    return collect


class Collector:
    """A pipeline but for the waiting, which is another for coroutines."""

    get = _collected(KeyValueOperations.get)
    set = _collected(KeyValueOperations.set)
    delete = _collected(KeyValueOperations.delete)
    increment = _collected(KeyValueOperations.increment)
    touch = _collected(KeyValueOperations.touch)
    persist = _collected(KeyValueOperations.persist)

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
        """Check a call of the facade and keep it for sending."""
        self.check_open()
        if call.timeout is not None:
            raise InvalidRequestError("an operation of a pipeline takes no timeout; give one to pipeline()")
        if call.arguments.get("idempotency_key") is not None:
            raise InvalidRequestError("an operation of a pipeline takes no idempotency_key; give one to pipeline()")
        arguments = check_arguments(call.tool, call.arguments)
        self._policy.admit(self._store.persona, call.tool, arguments)
        size_bytes = len(arguments["key"].encode())
        if "value" in arguments:
            text = encode_value(arguments["value"])
            size_bytes += len(text.encode())
            # It is sent later, and by then its owner may have changed it.
            arguments["value"] = decode_value(text)
        handle: PipelinedResult[Any] = PipelinedResult(call.tool, arguments)
        self._delivery.add(handle, size_bytes)
        return handle

    def flushing(self) -> Generator[tuple[Future[None], float], None, None]:
        """Flush; yields what to wait for, and how many seconds at most."""
        self.check_open()
        self._store.check_may_wait()
        try:
            yield from self._delivery.rounds()
        except BaseException:
            self.end("the pipeline's flush was interrupted")
            raise
        self._delivery.report(is_error=self._raise_on_error)

    def end(self, reason: str) -> None:
        """Send nothing more; what has no outcome gets one that tells the reason."""
        self._has_ended = True
        self._delivery.end(reason)

    def check_open(self) -> None:
        """Refuse to go on with a pipeline that has ended."""
        if self._has_ended:
            raise InvalidRequestError("this pipeline has ended; make another with store.pipeline()")


def _check_key(idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return new_operation_id()
    size_bytes = len(check_operation_id(idempotency_key).encode())
    if size_bytes > (allowed := MAX_OPERATION_ID_BYTES - _BATCH_NAME_BYTES):
        raise InvalidRequestError(f"a pipeline's idempotency_key is at most {allowed} bytes of UTF-8, not {size_bytes}")
    return idempotency_key
