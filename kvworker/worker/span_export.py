"""Sends a worker's spans to a collector (OTLP over HTTP), from each process that runs operations."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from celery.signals import worker_process_shutdown, worker_shutdown

from kvworker import tracing
from kvworker.__version__ import __version__
from kvworker.errors import ConfigurationError, extra_needed
from kvworker.fork_safety import ProcessLocal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

#: The longest time that an ending process waits for the collector to take its last spans.
_FLUSH_SECONDS: Final = 5.0


def export_spans(worker_name: str) -> None:
    """Turn tracing on in this worker, as OpenTelemetry's own variables say.

    Each process makes its provider when it makes its first span: a forked child could not use the parent's threads and
    connection.

    Args:
        worker_name: The worker's name, which the spans carry.

    Raises:
        ConfigurationError: The extra ``otel`` is missing.
    """
    try:
        # Before the pool forks, so that its children share the modules.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(extra_needed("tracing", "otel")) from error

    def make_provider() -> TracerProvider:
        """Make the provider of this process, with its thread."""
        own = {"service.version": __version__, "service.instance.id": worker_name}
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            own[SERVICE_NAME] = "kvworker"
        # Celery ends a child of the pool without Python's exit functions.
        provider = TracerProvider(resource=resource.merge(Resource(own)), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return provider

    providers = ProcessLocal(make_provider)

    tracing.enable(providers.get)
    for signal in (worker_process_shutdown, worker_shutdown):
        signal.connect(partial(_flush, providers), weak=False, dispatch_uid="kvworker.spans")


def _flush(providers: ProcessLocal[TracerProvider], **_: object) -> None:
    """Send the last spans of a process that ends."""
    provider = providers.pop()
    if provider is not None:
        # A collector that is away must not hold the worker.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH_SECONDS)
