"""The Celery application class of clients and workers, and the connections that it makes.

Everything that differs from stock Celery and kombu hangs on this class: its connections select our Redis transport,
and its cached properties have locks that a forked child replaces. Other applications in the process see none of it,
and what the environment says about a host program's own Celery application changes nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery import Celery
from celery.app.amqp import AMQP
from celery.app.utils import Settings as CelerySettings
from celery.loaders.app import AppLoader
from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.transport import pyamqp
from kombu.transport.redis import SentinelTransport, Transport
from kombu.utils.collections import HashedSeq

from kvworker.fork_safety import with_own_property_locks
from kvworker.messaging.amqp_transport import AmqpTlsTransport, AmqpTransport
from kvworker.messaging.redis_transport import RedisTransport
from kvworker.messaging.wire import WAITING

#: Celery's variables of the environment that would replace a setting, and the setting that counts instead.
_IGNORED_VARIABLES: Final[Mapping[str, str]] = {
    "CELERY_BROKER_URL": "queue.broker_url",
    "CELERY_BROKER_READ_URL": "queue.broker_url",
    "CELERY_BROKER_WRITE_URL": "queue.broker_url",
    "CELERY_RESULT_BACKEND": "queue.result_backend",
    "CELERY_CONFIG_MODULE": "the configuration file",
}
#: Our transports for RabbitMQ, by kombu's.
_AMQP_TRANSPORTS: Final[Mapping[type, type]] = {
    pyamqp.Transport: AmqpTransport,
    pyamqp.SSLTransport: AmqpTlsTransport,
}


@with_own_property_locks
class BrokerConnection(Connection):
    """A connection that uses our transports for Redis and RabbitMQ, and kombu's own for every other broker.

    kombu's setting ``broker_transport`` would not do: kombu ignores it for ``redis+socket`` URLs, and shows it in
    place of the URL's scheme.
    """

    redis_transport: type[Transport] = RedisTransport

    def get_transport_cls(self) -> Any:
        """Return the transport class, which is ours for Redis, with or without Sentinel, and for RabbitMQ."""
        transport = super().get_transport_cls()
        is_redis = transport in {Transport, SentinelTransport}
        return self.redis_transport if is_redis else _AMQP_TRANSPORTS.get(transport, transport)

    def __eqhash__(self) -> HashedSeq:
        """Return the key of this connection's pool: kombu shares pools between all applications of a process."""
        return HashedSeq(self.redis_transport, *super().__eqhash__())

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of connections that use our transport too."""
        return _BrokerConnectionPool(self, limit, **kwargs)


class _PooledBrokerConnection(PooledConnection, BrokerConnection):
    def __init__(self, pool: ConnectionPool, **kwargs: Any) -> None:
        self.redis_transport = pool.connection.redis_transport
        super().__init__(pool, **kwargs)


class _BrokerConnectionPool(ConnectionPool):
    """Makes connections that use our transport, where kombu's pool would make its own kind."""

    def new(self) -> PooledConnection:
        """Make a connection with the parameters of the pool's own."""
        return _PooledBrokerConnection(self, **dict(self.connection._info(resolve=False)))


@with_own_property_locks
class BrokerAMQP(AMQP):
    """Celery's messaging with our connections, whose messages tell when they were sent."""

    Connection = BrokerConnection

    def as_task_v2(self, *args: Any, **kwargs: Any) -> Any:
        """Return a task's message. Its header tells monitors how long it has waited."""
        message = super().as_task_v2(*args, **kwargs)
        message.headers[WAITING] = {"sent": time.time()}
        return message


def ignored_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a notice for each variable that a stock Celery application would obey, and ours does not.

    Args:
        environ: The environment variables. ``celery -A tasks -b URL`` sets one of them.
    """
    for name, setting in _IGNORED_VARIABLES.items():
        if environ.get(name):
            yield f"{name} is ignored: {setting} decides"


class OwnConfiguration(CelerySettings):
    """Celery's configuration, without the variables of the environment that Celery prefers to it."""

    @property
    def broker_url(self) -> Any:
        """The broker that the application was given, whatever ``CELERY_BROKER_URL`` says."""
        return self.first("broker_url")

    @property
    def broker_read_url(self) -> Any:
        """The same broker, whatever ``CELERY_BROKER_READ_URL`` says."""
        return self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """The same broker, whatever ``CELERY_BROKER_WRITE_URL`` says."""
        return self.broker_url

    @property
    def result_backend(self) -> Any:
        """The results' server that the application was given, whatever ``CELERY_RESULT_BACKEND`` says."""
        return self.first("result_backend")


class OwnLoader(AppLoader):
    """Celery's loader, without the module that ``CELERY_CONFIG_MODULE`` names."""

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:  # noqa: ARG002 - Celery's
        """Return no settings: the application is given all of them."""
        return {}


@with_own_property_locks
class Application(Celery):
    """The Celery application of clients; ``kvworker.worker.celery_worker`` extends it for workers."""

    amqp_cls = BrokerAMQP
    #: Celery would also set up the Django project that ``DJANGO_SETTINGS_MODULE`` names.
    builtin_fixups: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Celery gives no way to choose this class, and an ordinary assignment would become a setting.
        object.__setattr__(self._conf, "__class__", OwnConfiguration)

    def _get_default_loader(self) -> type[AppLoader]:
        return OwnLoader
