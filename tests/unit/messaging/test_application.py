"""Our applications use our classes; every other application in the process uses kombu's and Celery's."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any

import pytest
from celery import Celery
from celery.app.amqp import AMQP
from celery.backends.redis import RedisBackend
from kombu import Connection
from kombu.pools import connections
from kombu.transport.redis import Channel, QoS, Transport

from kvworker import Settings
from kvworker.messaging.amqp_transport import AmqpTlsTransport, AmqpTransport
from kvworker.messaging.application import Application, BrokerAMQP, BrokerConnection, ignored_variables
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.redis_transport import RedisChannel, RedisTransport
from kvworker.messaging.result_backend import ResultBackend
from kvworker.worker.celery_worker import WorkerApplication
from kvworker.worker.taking import WorkerTransport
from kvworker.worker.unacked import UnackedRecord
from tasks.application import make_worker_app

REDIS_URLS = [
    "redis://h/1",
    "rediss://h?ssl_cert_reqs=required",
    "redis+socket:///v.sock",
    "sentinel://h,i/1?master_name=m",
]


def app(url: str, *, worker: bool = False) -> Any:
    settings = Settings.from_mapping({"queue": {"broker_url": url, "result_backend": "redis://h/1"}})
    return make_worker_app(settings) if worker else make_celery(settings)


@pytest.mark.parametrize("url", REDIS_URLS)
@pytest.mark.parametrize(("worker", "transport"), [(False, RedisTransport), (True, WorkerTransport)])
def test_every_connection_of_ours_to_redis_uses_our_transport(url: str, worker: bool, transport: object) -> None:
    ours = app(url, worker=worker)
    pooled = ours.pool.acquire()
    made = [ours.connection_for_read(), ours.connection_for_write(), ours.connection_for_read().clone(), pooled]
    assert [connection.get_transport_cls() for connection in made] == [transport] * 4
    pooled.release()


@pytest.mark.parametrize("url", REDIS_URLS)
def test_a_connection_shows_the_configured_url_without_its_password(url: str) -> None:
    shown = (
        app(url.replace("h", "u:hunter2@h", 1)).connection().as_uri() if "@" in url else app(url).connection().as_uri()
    )
    assert shown.startswith(url.partition("://")[0] + "://")
    assert "hunter2" not in shown


def test_other_brokers_have_their_own_transports() -> None:
    assert app("amqp://h").connection().get_transport_cls() is AmqpTransport
    assert app("amqps://h").connection().get_transport_cls() is AmqpTlsTransport


def test_another_application_shares_neither_transport_nor_pool_with_ours() -> None:
    url = REDIS_URLS[0]
    ours = app(url)
    stock = Celery("stock", broker=url, set_as_current=False, changes={"broker_transport_options": {}})
    stock.conf.broker_transport_options = ours.conf.broker_transport_options
    assert type(stock.connection()) is Connection
    assert stock.connection().get_transport_cls() is Transport
    assert stock.pool is not ours.pool
    assert app(url).pool is ours.pool
    assert connections[stock.connection_for_write()] is stock.pool


def test_an_application_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(app(REDIS_URLS[0])))  # noqa: S301 - our own
    assert type(again) is Application
    assert again.connection().get_transport_cls() is RedisTransport


PROPERTIES = {
    "application": (WorkerApplication, Celery, "amqp"),
    "messaging": (BrokerAMQP, AMQP, "queues"),
    "connection": (BrokerConnection, Connection, "connection_errors"),
    "channel": (RedisChannel, Channel, "client"),
    "results": (ResultBackend, RedisBackend, "client"),
    "unacked": (UnackedRecord, QoS, "unacked_key"),
}


def child_can_acquire(lock: Any) -> bool:
    """Fork while another thread holds the lock, and tell whether the child can acquire it."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    pid = os.fork()
    if not pid:
        os._exit(0 if lock().acquire(timeout=0.5) else 1)
    _, status = os.waitpid(pid, 0)
    done.set()
    holder.join()
    return status == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("ours", "stock", "name"), PROPERTIES.values(), ids=PROPERTIES)
def test_a_child_does_not_inherit_a_lock_that_another_thread_held(ours: Any, stock: Any, name: str) -> None:
    inherited = next(vars(base)[name] for base in stock.__mro__ if name in vars(base))
    assert hasattr(inherited, "lock"), "this cached property has no lock any more, so ours needs no copy"
    assert not child_can_acquire(lambda: inherited.lock), "a fork renews this lock, so ours needs no copy"
    own = next(vars(base)[name] for base in ours.__mro__ if name in vars(base))
    assert child_can_acquire(lambda: own.lock)


@pytest.mark.parametrize("worker", [False, True])
def test_a_host_programs_environment_changes_no_setting(monkeypatch: pytest.MonkeyPatch, worker: bool) -> None:
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.setenv(f"CELERY_{name}", "redis://elsewhere/7")
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "no_such_module")
    monkeypatch.setenv("CELERY_LOADER", "no_such_module.Loader")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "no_such_module")
    ours = app("redis://h:1/1", worker=worker)
    made = (ours.connection_for_read(), ours.connection_for_write(), ours.connection())
    assert {(connection.hostname, connection.port) for connection in made} == {("h", 1)}
    assert (ours.conf.broker_url, ours.conf.result_backend) == ("redis://h:1/1", "redis://h/1")
    assert ours.backend.connparams["host"] == "h"
    assert not ours.conf.task_always_eager


def test_a_notice_names_each_ignored_variable_but_not_its_value() -> None:
    environ = {"CELERY_BROKER_URL": "redis://:hunter2@h", "CELERY_RESULT_BACKEND": "", "CELERY_LOG_LEVEL": "1"}
    assert list(ignored_variables(environ)) == ["CELERY_BROKER_URL is ignored: queue.broker_url decides"]
