"""Pipelines: many operations as a few messages.

::

    with store.pipeline() as p:
        p.set("session", "token", {"scopes": ["a"]}, ttl_seconds=60)
        calls = p.increment("metrics", "calls")
    calls.result().value

``get``, ``set``, ``delete``, ``increment``, ``touch`` and ``persist`` have the parameters of the store's methods. Each
checks its arguments at once, copies the value, collects the operation and returns a handle.

**Messages.** The operations of a namespace become ``kv_batch`` messages that are not atomic: each operation has its own
result or its own error. Effects and results are the same as if you had called one operation after the other, except
that other callers may write between two messages. Namespaces have no order among each other. A message either only
reads or only writes, so reading back what the same pipeline wrote costs one more message each time. The first messages
of all namespaces are sent before any is awaited; the next message of a namespace follows when its previous one is
answered.

**When.** Operations are sent at the end of the with block and by ``flush()``. A namespace that has collected 1000
operations, or 4 MiB of keys and values, is sent without waiting for either: at once, or after the answer to its message
in flight.

**Errors.** A call raises at once for wrong arguments or missing rights, and then collects nothing. After a flush each
handle has its result or raises its error. A flush, and so the end of the with block, awaits everything and then raises
a ``PipelineError`` that names every failed operation, except those whose handle has raised already. So no failed write
goes unnoticed. With ``raise_on_error=False`` only the handles raise, which suits operations that you expect to be
refused (``if_absent``). If a whole message fails, for example by a timeout, the pipeline sends nothing more of its
namespace, because later messages could overtake it: ``OperationNotSentError``.

If the with block raises, the pipeline sends nothing more and awaits nothing. Handles of unsent operations then raise
``OperationNotSentError``, and handles of operations in flight raise ``OperationTimeoutError``.

**Timeout.** ``timeout`` bounds each flush as a whole, in seconds. After it nothing is awaited, and no worker starts an
operation of the flush.

**Exactly once.** Every pipeline has an ``idempotency_key``, yours or a generated one, from which the operation ids of
its messages are derived. After an error with an unknown outcome, repeat the whole pipeline, with the same operations
and flushes in the same order and with ``idempotency_key=error.idempotency_key``. Operations that were applied are not
applied again and give the same results, refusals included; reads are repeated. Different writes with the same key raise
``IdempotencyConflictError``. You cannot give a key to a single operation.

Use a pipeline once, in one thread or one asyncio task. For a pipeline of ``AsyncKeyValueStore`` write ``async with``
and ``await p.flush()``; its other methods and its handles are not awaited.

May import the rest of ``client``, except ``sync`` and ``aio``.
"""

from kvworker.client.pipeline.aio import AsyncPipeline
from kvworker.client.pipeline.batches import PipelinedResult
from kvworker.client.pipeline.sync import Pipeline, open_pipeline

__all__ = ["AsyncPipeline", "Pipeline", "PipelinedResult", "open_pipeline"]
