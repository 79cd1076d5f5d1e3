"""Serves the metrics of the whole over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from kvworker.messaging.metrics_server import serving_metrics
from kvworker.ops.overview.collector import OverviewCollector
from kvworker.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@contextmanager
def running_exporter(settings: Settings, where: str, top: int) -> Iterator[str]:
    """Serve the metrics of the whole until the context ends, and yield their URL.

    Args:
        settings: The settings of the store.
        where: Address and port, as ``listen_addresses`` in ``kvworker.settings.hosts`` describes.
        top: The number of the fullest namespaces to name; 0 names none.

    Raises:
        ConfigurationError: It cannot listen there, or the extra ``metrics`` is missing.
        ValueError: The address is invalid.
    """
    with closing(OverviewCollector(settings, top=top)) as collector:

        def make_registry() -> CollectorRegistry:
            """Make it of what is collected."""
            from kvworker.ops.overview.metrics import overview_registry  # noqa: PLC0415 - an extra

            return overview_registry(collector)

        with serving_metrics(where, "the exporter", make_registry) as url:
            yield url
