"""The configuration of the Celery application that clients and workers share.

Each setting that differs from Celery's default says why. The sources are the Celery 5.7 configuration reference,
kombu's Redis transport options, and tests in which brokers and workers fail.
"""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue

from kvworker.messaging import wire
from kvworker.messaging.application import Application
from kvworker.messaging.certificates import sign_everything
from kvworker.messaging.credentials import FileCredentials
from kvworker.messaging.result_backend import ResultBackend, use_result_backend
from kvworker.messaging.sentinel import PrimaryConnection
from kvworker.retries import MAX_PAUSE_SECONDS
from kvworker.settings import Settings
from kvworker.settings.sentinel_urls import first_sentinel_url, sentinel_address
from kvworker.settings.url_files import UrlFile
from kvworker.settings.url_parameters import (
    REDIS_CONNECTION_PARAMETERS,
    TLS_PARAMETERS,
    redis_connection_parameters,
    tls_parameters,
    without_parameters,
)
from kvworker.settings.urls import speaks_redis

#: A check is a PING.
_LEAST_CHECK_SECONDS: Final = 1.0


def make_celery(settings: Settings) -> Celery:
    """Make a client's Celery application for these settings. It has no tasks and is not the current application."""
    app = Application("kvworker", set_as_current=False)
    configure(app, settings)
    return app


def configure(app: Application, settings: Settings) -> None:
    """Apply settings to an application of a client or a worker.

    Args:
        app: The application to configure.
        settings: Where the broker, the results and the queues are, and how long to wait for them.
    """
    queue = settings.queue
    app.conf.update(
        broker_url=_kombu_url(queue.broker_url),
        result_backend=_without_sentinels(queue.result_backend),
        **_wire_settings(settings),
        **_queue_settings(settings),
        **_worker_settings(settings),
        **_connection_settings(settings),
    )
    use_result_backend(app, ResultBackend)


def _wire_settings(settings: Settings) -> dict[str, Any]:
    if settings.policies.has_certificates:
        return sign_everything(settings.policies)
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
    }


def _queue_settings(settings: Settings) -> dict[str, Any]:
    names = (settings.queue.queue_name, settings.queue.maintenance_queue_name)
    arguments = settings.queue.arguments or None
    # Declare the queues as Celery would create missing ones. A user's application that applies one of our
    # signatures then declares the same queue; RabbitMQ refuses a different declaration.
    queues = [Queue(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments) for name in names]
    maintenance_tasks = (wire.SWEEP_TASK, wire.RECOMPUTE_TASK, wire.PRUNE_TASK)
    return {
        "task_queues": queues,
        "task_default_queue": settings.queue.queue_name,
        "task_routes": {task: {"queue": settings.queue.maintenance_queue_name} for task in maintenance_tasks},
    }


def _worker_settings(settings: Settings) -> dict[str, Any]:
    return {
        # A message is acknowledged once its result is stored, so a lost worker loses no message.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # With late acknowledgement a worker would hold one more message per slot behind slow ones (Redis only).
        "worker_disable_prefetch": speaks_redis(settings.queue.broker_url),
        "worker_soft_shutdown_timeout": settings.queue.soft_shutdown_seconds,
        "worker_enable_soft_shutdown_on_idle": False,
        # Operations are idempotent, so a task may finish after the connection is lost.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": settings.queue.remote_control,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "task_track_started": False,
        "result_expires": settings.queue.result_expires_seconds,
        # By default Celery drops a result that it could not store, and the caller waits until its timeout.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 30,
        "result_backend_max_sleep_between_retries_ms": int(MAX_PAUSE_SECONDS * 1000),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # By default a worker ends if the broker refuses a command or closes a channel. A server whose memory is full,
        # or that is a replica, does so for a while.
        "broker_channel_error_retry": True,
        "timezone": "UTC",
        "enable_utc": True,
    }


def _connection_settings(settings: Settings) -> dict[str, Any]:
    timeout = settings.queue.connect_timeout_seconds
    common: dict[str, Any] = {
        "broker_connection_timeout": timeout,
        "broker_pool_acquire_timeout": timeout,
        "redis_socket_timeout": timeout,
        "redis_socket_connect_timeout": timeout,
        # Celery passes it to Unix sockets too, which do not support it.
        "redis_socket_keepalive": "socket" not in settings.queue.result_backend.partition("://")[0],
        "redis_backend_health_check_interval": 25,
        "visibility_timeout": settings.queue.visibility_timeout_seconds,
        "result_backend_transport_options": {
            "visibility_timeout": settings.queue.visibility_timeout_seconds,
            "connection_parameters": _result_parameters(settings),
            # Celery's own waits, such as a user's AsyncResult.get, give up within seconds if the server is away.
            "retry_policy": {
                "max_retries": 4,
                "interval_start": 0,
                "interval_step": 0.25,
                "interval_max": 0.5,
                "timeout": timeout,
            },
        },
    }
    if speaks_redis(settings.queue.broker_url):
        return {**common, "broker_transport_options": _redis_options(settings)}
    # Without confirms, a message written to a failing connection is lost silently.
    options = {"confirm_publish": True, "url_file": settings.broker_file, **_limits(settings)}
    amqp = {**common, "broker_transport_options": options}
    url = settings.queue.broker_url
    return {**amqp, "broker_use_ssl": _amqp_tls(url)} if _is_amqps(url) else amqp


def _kombu_url(url: str) -> str:
    """Remove the parameters that kombu does not understand. They are passed on separately."""
    if _is_amqps(url):
        return without_parameters(url, TLS_PARAMETERS)
    if redis_connection_parameters(url):
        url = without_parameters(url, REDIS_CONNECTION_PARAMETERS)
    return _without_sentinels(url)


def _without_sentinels(url: str) -> str:
    """Leave one host of several Sentinels: connections get all of them as an option."""
    return first_sentinel_url(url) if sentinel_address(url) else url


def _server_parameters(url: str, file: UrlFile | None) -> dict[str, Any]:
    """Return the arguments with which a connection logs in, and finds the primary if the URL names Sentinels."""
    login = {} if file is None else {"credential_provider": FileCredentials(file)}
    address = sentinel_address(url, file)
    return {**login, "sentinel": address} if address else login


def _result_parameters(settings: Settings) -> dict[str, Any]:
    found = _server_parameters(settings.queue.result_backend, settings.results_file)
    return {**found, "connection_class": PrimaryConnection} if "sentinel" in found else found


def _limits(settings: Settings) -> dict[str, Any]:
    """Return the option of our own transports, which kombu's ignore."""
    return {"max_message_bytes": settings.queue.max_message_bytes}


def _is_amqps(url: str) -> bool:
    return url.startswith("amqps://")


def _amqp_tls(url: str) -> dict[str, Any]:
    """Translate the URL's TLS parameters, whose names py-amqp does not know."""
    given = tls_parameters(url)
    reqs = given.pop("ssl_cert_reqs").removeprefix("CERT_").upper()
    options: dict[str, Any] = {name.removeprefix("ssl_"): value for name, value in given.items()}
    options["cert_reqs"] = ssl.VerifyMode[f"CERT_{reqs}"]
    if options["cert_reqs"] is ssl.CERT_REQUIRED:
        # Without a host name py-amqp accepts a certificate of any host.
        options["server_hostname"] = urlsplit(url).hostname
    return options


def _redis_options(settings: Settings) -> dict[str, Any]:
    timeout = settings.queue.connect_timeout_seconds
    return {
        **_limits(settings),
        "visibility_timeout": settings.queue.visibility_timeout_seconds,
        # kombu checks every 10 s by default and acts on every 10th check, so it restores up to 100 s late.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Applications that share these keys share the shortest of their visibility timeouts, so use our own.
        "unacked_key": "kvworker.unacked",
        "unacked_index_key": "kvworker.unacked_index",
        "unacked_mutex_key": "kvworker.unacked_mutex",
        # A worker or a broker that is killed while it restores messages leaves this lock behind. kombu lets it stand
        # for 300 s, in which no process restores anything. Two workers that restore at once do no harm.
        "unacked_mutex_expire": 5,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "connection_parameters": {
            **redis_connection_parameters(settings.queue.broker_url),
            **_server_parameters(settings.queue.broker_url, settings.broker_file),
        },
        # A worker waits for messages without a timeout. kombu looks this often whether an answer is overdue, on a
        # connection that the network has lost without a word. Its default of 25 s finds out after up to 51 s.
        "health_check_interval": max(_LEAST_CHECK_SECONDS, timeout),
    }
