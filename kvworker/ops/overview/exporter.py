"""Serves the metrics of the whole over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from kvworker.errors import ConfigurationError, extra_needed
from kvworker.messaging.metrics_server import MetricsServer
from kvworker.ops.overview.collector import OverviewCollector
from kvworker.settings import Settings
from kvworker.settings.hosts import listen_addresses


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
    try:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - an extra

        from kvworker.ops.overview.metrics import overview_registry  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError(extra_needed("the exporter", "metrics")) from None
    host, ports = listen_addresses(where)
    with closing(OverviewCollector(settings, top=top)) as collector:
        try:
            server = MetricsServer(make_wsgi_app(overview_registry(collector)), host, ports)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None
        with closing(server):
            yield server.url
