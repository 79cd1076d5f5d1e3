"""Serves the metrics of the whole over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from kvworker.errors import ConfigurationError, extra_needed
from kvworker.ops.overview.collector import OverviewCollector
from kvworker.settings import Settings
from kvworker.settings.hosts import listen_addresses


@contextmanager
def running_exporter(settings: Settings, where: str, top: int) -> Iterator[str]:
    """Serve the metrics of the whole until the context ends, and give their URL.

    Args:
        settings: The settings of the store.
        where: Address and port, as ``listen_addresses`` in ``kvworker.settings.hosts`` describes.
        top: How many of the fullest namespaces to name; 0 names none.

    Raises:
        ConfigurationError: It cannot listen there, or the extra ``metrics`` is missing.
        ValueError: This is no address.
    """
    try:
        from prometheus_client import start_http_server  # noqa: PLC0415 - an extra

        from kvworker.ops.overview.metrics import overview_registry  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError(extra_needed("the exporter", "metrics")) from None
    host, ports = listen_addresses(where)
    with closing(OverviewCollector(settings, top=top)) as collector:
        registry, problem = overview_registry(collector), OSError()
        for port in ports:
            try:
                server, thread = start_http_server(port, host, registry)
                break
            except OSError as error:
                problem = error
        else:
            raise ConfigurationError(f"cannot listen on {where}: {problem.strerror or problem}")
        try:
            address, port, *_ = server.server_address
            yield _url(str(address), port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _url(address: str, port: int) -> str:
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/metrics"
