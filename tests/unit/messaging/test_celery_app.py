from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import current_app

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.settings import redacted_url
from tasks.application import make_worker_app

REDIS = "redis://:hunter2@127.0.0.1:6379/0"


def conf(**queue: Any) -> Any:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": REDIS, **queue}})).conf


def test_a_lost_worker_loses_no_message() -> None:
    assert conf().task_acks_late
    assert conf().task_reject_on_worker_lost
    assert conf().worker_prefetch_multiplier == 1


def test_prefetch_is_off_on_redis_where_a_worker_would_hold_messages() -> None:
    assert conf().worker_disable_prefetch is True
    assert conf(broker_url="amqp://127.0.0.1", result_backend=REDIS).worker_disable_prefetch is False


def test_only_json_is_accepted() -> None:
    serializers = (conf().task_serializer, conf().result_serializer, conf().event_serializer)
    assert serializers == ("json", "json", "json")
    assert conf().accept_content == conf().result_accept_content == ["json"]


def test_a_worker_sends_no_events() -> None:
    quiet = conf()
    assert not quiet.worker_send_task_events
    assert not quiet.task_send_sent_event
    assert not quiet.task_track_started


def test_redelivery_follows_the_configured_visibility_timeout() -> None:
    made = conf(visibility_timeout_seconds=30, retry_seconds=5)
    assert made.broker_transport_options["visibility_timeout"] == 30
    assert made.result_backend_transport_options["visibility_timeout"] == 30
    assert made.visibility_timeout == 30
    assert made.broker_transport_options["unacked_restore_interval"] == 1
    assert made.broker_transport_options["unacked_restore_throttle"] == 1


def test_a_stopping_worker_waits_for_its_tasks() -> None:
    assert conf(soft_shutdown_seconds=7).worker_soft_shutdown_timeout == 7


def test_a_published_message_is_confirmed_by_rabbitmq() -> None:
    assert conf(broker_url="amqp://127.0.0.1", result_backend=REDIS).broker_transport_options["confirm_publish"] is True


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"}),
        (
            f"?ssl_ca_certs={__file__}&heartbeat=9",
            {"ca_certs": __file__, "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"},
        ),
        ("?ssl_cert_reqs=none", {"cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_amqps_verifies_the_certificate_and_its_host_unless_told_otherwise(query: str, options: dict[str, Any]) -> None:
    made = conf(broker_url=f"amqps://u:p@h:5671/vhost{query}", result_backend=REDIS)
    assert made.broker_use_ssl == options
    assert "ssl_" not in made.broker_url
    assert ("heartbeat=9" in made.broker_url) == ("heartbeat" in query)


def test_a_client_leaves_the_callers_own_application_alone() -> None:
    before = current_app._get_current_object()
    make_celery(Settings())
    assert current_app._get_current_object() is before


def test_the_client_application_registers_no_task() -> None:
    assert not [name for name in make_celery(Settings()).tasks if name.startswith("kvworker.")]


@pytest.mark.filterwarnings("error")
def test_two_worker_applications_do_not_disturb_each_other() -> None:
    names = [sorted(make_worker_app(Settings()).tasks) for _ in range(2)]
    assert names[0] == names[1]


def test_a_redacted_url_has_no_password() -> None:
    assert "hunter2" not in redacted_url(REDIS)
