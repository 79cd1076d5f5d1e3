"""Many operations as a few messages.

::

    with store.pipeline() as p:
        p.set("session", "token", {"scopes": ["a"]}, ttl_seconds=60)
        calls = p.increment("metrics", "calls")
    calls.result().value

``get``, ``set``, ``delete``, ``increment``, ``touch`` and ``persist`` take what the store's methods take, are checked
at once, and collected; each gives a handle. A value is taken as it is at the call.

What is sent. The operations of a namespace become ``kv_batch`` messages that are not atomic: each operation has its own
result or its own error. They have the effects and the results that they have one after the other, though others may
write between two messages; there is no order between namespaces. A message only reads or only writes, so that to read
what the same pipeline wrote, write it again, read it again and so on costs a message each time. The first message of
every namespace is published before any is awaited, the next of a namespace once the one before is answered.

When. At the end of the with block; by ``flush()``; and what a namespace has once that is 1000 operations, or 4 MiB of
keys and values, without waiting: at once, or if a message of the namespace is under way, after its answer.

Errors. A wrong argument, or a persona's lack of rights, is raised by the call itself, and nothing is collected. After a
flush each handle has its result or raises its error. The flush, thus the end of the with block, awaits everything and
then raises a ``PipelineError`` that names every operation which failed, but for those whose handle has raised it
already: who asks no handle must not lose a write without a word. ``raise_on_error=False`` leaves them all to the
handles, for operations whose refusal is an answer (``if_absent``). If a message fails as a whole (no answer in time,
say), this pipeline sends nothing more of its namespace, which could overtake it: ``OperationNotSentError``.

If the with block raises, nothing further is sent, and nothing awaited: the handles of what was not sent raise
``OperationNotSentError``, those of what is under way ``OperationTimeoutError``.

``timeout`` is in seconds and bounds each flush as a whole: then nothing is awaited any more, nor started by a worker.

Exactly once. Every pipeline has an ``idempotency_key``, given or made, of which its messages' operation ids are made.
After an error whose outcome is unknown, repeat the whole pipeline, the same operations and flushes in the same order,
with ``idempotency_key=error.idempotency_key``: what was applied is not applied again and answers as it did, refusals
included; reads are read anew. Other writes under the same key are an ``IdempotencyConflictError``. An operation has no
key of its own.

A pipeline belongs to one thread, or one asyncio task, and is used once. That of ``AsyncKeyValueStore`` is the same, but
for ``async with`` and ``await p.flush()``: neither its other methods nor the handles are awaited.
"""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import closing
from typing import Self

from kvworker.client.base import KeyValueOperations
from kvworker.client.pipeline.batches import PipelinedResult
from kvworker.client.pipeline.collector import Collector
from kvworker.client.pipeline.delivery import LEFT_BY_AN_ERROR

__all__ = ["LEFT_BY_AN_ERROR", "Collector", "Pipeline", "PipelinedResult", "open_pipeline"]


class Pipeline(Collector):
    """The pipeline of a synchronous store; the module's docstring tells all about it."""

    def flush(self) -> None:
        """Send what is collected, and await all that was sent.

        Raises:
            PipelineError: operations failed (all others were applied), unless ``raise_on_error`` is False.
            NestedCallError: a task would wait for its own worker; nothing was sent.
        """
        with closing(self.flushing()) as flushing:
            for news, seconds in flushing:
                wait([news], seconds)

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if exc_type is None:
                self.flush()
        finally:
            self.end(LEFT_BY_AN_ERROR)


def open_pipeline(
    store: KeyValueOperations,
    *,
    idempotency_key: str | None = None,
    raise_on_error: bool = True,
    timeout: float | None = None,
) -> Pipeline:
    """A pipeline, to use as a context manager: it collects operations and sends them as a few messages.

    ``timeout`` is in seconds and bounds each flush. With the same ``idempotency_key`` a repeated pipeline is applied
    once. Unless ``raise_on_error`` is False, the end of the with block raises ``PipelineError`` if any failed.
    ``kvworker.client.pipeline`` tells the rest.
    """
    return Pipeline(store, idempotency_key, raise_on_error=raise_on_error, timeout=timeout)
