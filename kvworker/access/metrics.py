"""Serves the number of failed attempts for Prometheus, on a port of its own. It needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kvworker.access.failures import FailedAttempts
from kvworker.messaging.metrics_server import serving_metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@contextmanager
def serving_failures(where: str | None, server: str, failures: FailedAttempts) -> Iterator[None]:
    """Serve the metrics of a server's access until the context ends.

    Args:
        where: Address and port, as ``listen_addresses`` in ``kvworker.settings.hosts`` describes; None serves nothing.
        server: The server that clients try to open, for a label.
        failures: Their failed attempts.

    Raises:
        ConfigurationError: It cannot listen there, or the extra ``metrics`` is missing.
    """
    if where is None:
        yield
        return
    with serving_metrics(where, "--metrics-listen", lambda: access_registry(server, failures)):
        yield


def access_registry(server: str, failures: FailedAttempts) -> CollectorRegistry:
    """Return a registry with the number of failed attempts, and with the metrics of this process."""
    from prometheus_client import CollectorRegistry, Metric, ProcessCollector  # noqa: PLC0415 - an extra
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class _Failures(Collector):
        def collect(self) -> Iterator[Metric]:
            """Count the failures until now."""
            family = CounterMetricFamily(
                "kvworker_access_failures",
                "Attempts to open a server with a token that is unknown, revoked or expired.",
                labels=("server",),
            )
            family.add_metric((server,), failures.total)
            yield family

    registry = CollectorRegistry()
    registry.register(_Failures())
    ProcessCollector(registry=registry)
    return registry
