"""Turns traces on in the process of a test, and collects its spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kvworker import tracing


@dataclass(frozen=True)
class Traced:
    """The provider of this process, which is not the global one, and its finished spans."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    def finished(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended, in the order of their ends."""
        return self.exporter.get_finished_spans()


@contextmanager
def traced() -> Iterator[Traced]:
    """Trace within a ``with`` block."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.enable(lambda: provider)
    try:
        yield Traced(provider, exporter)
    finally:
        tracing.disable()
        provider.shutdown()
