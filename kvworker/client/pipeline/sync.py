"""The pipeline of a synchronous store."""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import closing
from typing import Self

from kvworker.client.base import KeyValueOperations
from kvworker.client.pipeline.collector import Collector
from kvworker.client.pipeline.delivery import LEFT_BY_AN_ERROR


class Pipeline(Collector):
    """Collects operations and sends them as a few messages; ``kvworker.client.pipeline`` describes it."""

    def flush(self) -> None:
        """Send the collected operations, and wait for everything that was sent.

        Raises:
            PipelineError: Operations failed, and all others were applied. Not raised if ``raise_on_error`` is False.
            NestedCallError: The caller is a task that would wait for its own worker; nothing was sent.
        """
        with closing(self.flushing()) as flushing:
            for arrival, seconds in flushing:
                wait([arrival], seconds)

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
    """Return a pipeline, to use as a context manager: it collects operations and sends them as a few messages.

    ``kvworker.client.pipeline`` describes it in full.

    Args:
        store: The store that sends the messages.
        idempotency_key: Identifies the pipeline. A repeated pipeline with the same key is applied only once.
        raise_on_error: Makes a flush, and so the end of the with block, raise ``PipelineError`` if any operation
            failed.
        timeout: Bounds each flush, in seconds. None means the configured default.

    Raises:
        NestedCallError: The caller is a task that would wait for its own worker.
    """
    return Pipeline(store, idempotency_key, raise_on_error=raise_on_error, timeout=timeout)
