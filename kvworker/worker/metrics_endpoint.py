"""Where a worker serves its metrics over HTTP, if it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.utils.log import get_logger

from kvworker.errors import ConfigurationError, extra_needed
from kvworker.fork_safety import ForkAware, watch_forks
from kvworker.messaging.metrics_server import MetricsServer
from kvworker.settings.environment import METRICS_VARIABLE
from kvworker.settings.hosts import listen_addresses

logger = get_logger(__name__)


class MetricsEndpoint(ForkAware):
    """An HTTP server, in a thread of the worker's main process.

    Args:
        where: Address and port, as ``listen_addresses`` in ``kvworker.settings.hosts`` describes.
        name: The worker's name.
        status: Returns what ``QuietWorker.status`` describes.

    Raises:
        ConfigurationError: It cannot listen there, or the extra ``metrics`` is missing.
    """

    def __init__(self, where: str, name: str, status: Callable[[], Mapping[str, Any]]) -> None:
        try:
            host, ports = listen_addresses(where)
        except ValueError as error:
            raise ConfigurationError(f"{METRICS_VARIABLE} is {where!r}: {error}") from None
        self._server = self._start(host, ports, name, status)
        self.url = self._server.url
        watch_forks(self)
        logger.info("metrics are at %s", self.url)

    @staticmethod
    def _start(host: str, ports: range, name: str, status: Callable[[], Mapping[str, Any]]) -> MetricsServer:
        try:
            from prometheus_client import make_wsgi_app  # noqa: PLC0415 - an extra, and most workers have none

            from kvworker.worker.metrics import worker_registry  # noqa: PLC0415
        except ModuleNotFoundError:
            raise ConfigurationError(extra_needed(METRICS_VARIABLE, "metrics")) from None
        try:
            return MetricsServer(make_wsgi_app(worker_registry(name, status)), host, ports)
        except OSError as error:
            shown = ports[0] if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
            raise ConfigurationError(
                f"{METRICS_VARIABLE}: cannot listen on {host}, port {shown} ({error.strerror or error}); give each"
                f" worker of this machine its own port, or all of them a range such as {host}:9820-9827"
            ) from None

    def after_fork_in_child(self) -> None:
        """Leave the port to the main process: it must be free once that has ended, whatever its children do."""
        self._server.close_in_child()
