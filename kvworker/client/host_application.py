"""Finds the host program's Celery application, so that operations can join its groups and chords.

A group waits for all its results through the backend object of one application. A signature that is bound to another
application has another backend object, so the group would never hear of its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery import Celery, _state
from celery.backends.redis import RedisBackend

from kvworker.errors import ConfigurationError

_THIS_HOST: Final = {"localhost": "127.0.0.1"}
_EAGER: Final = (
    "task_always_eager is set in Celery's current application, and it cannot run an operation in its own process: unset"
    " it and run a worker, or call the operation on an InlineKeyValueStore, which needs none"
)
_DEFAULTS: Final = {"redis": (6379, "0"), "amqp": (5672, "")}


def application_for(own: Celery) -> Celery:
    """Return the host program's current application if it can send operations, else kvworker's.

    It can if it uses the same broker and the same results, and signs nothing.

    Args:
        own: kvworker's application, which knows the servers.

    Raises:
        ConfigurationError: The host program's application runs all tasks eagerly.
    """
    # celery.current_app would make an application if there is none.
    host = _state._tls.current_app or _state.default_app
    if host is None or host is own:
        return own
    if host.conf.task_always_eager:
        raise ConfigurationError(_EAGER)
    if host.conf.task_serializer != own.conf.task_serializer:
        return own
    if not host.conf.task_create_missing_queues:
        return own
    try:
        is_same = _broker_of(host) == _broker_of(own) and _results_of(host) == _results_of(own)
    except Exception:  # noqa: BLE001 - a wrong setting of the host raises here, and must not concern the store
        return own
    return host if is_same else own


def _broker_of(app: Celery) -> tuple[Any, ...]:
    with app.connection_for_write() as connection:
        transport = str(connection.transport_cls).removeprefix("py")
        port, place = _DEFAULTS.get(transport, (0, ""))
        virtual_host = str(connection.virtual_host or "").strip("/")
        primary = _primary_name(connection.transport_options)
        return transport, _host(connection.hostname), connection.port or port, virtual_host or place, primary


def _results_of(app: Celery) -> tuple[Any, ...]:
    backend = app.backend
    if not isinstance(backend, RedisBackend):
        raise TypeError("no Redis")
    parameters = backend.connparams
    # Celery's backend for Sentinel has a list of hosts, and ours the first.
    server = parameters["hosts"][0] if "hosts" in parameters else parameters
    place = _host(server.get("host", "")), server.get("port"), server.get("path")
    primary = _primary_name(backend._transport_options)
    return *place, int(parameters.get("db") or 0), backend.get_key_for_task("id"), primary


def _primary_name(options: Mapping[str, Any]) -> str | None:
    """Return the name of the primary that Sentinel is asked for: kombu's own option, or a part of ours."""
    ours = options.get("connection_parameters", {}).get("sentinel")
    name: str | None = ours.master_name if ours else options.get("master_name")
    return name


def _host(name: str) -> str:
    return _THIS_HOST.get(name, name)
