"""A URL's parameter is passed on with its type, or refused by name when the configuration is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.messaging.celery_app import make_celery
from kvworker.settings import Settings
from tests.support.refusals import refusal


def sqlite(url: str) -> dict[str, Any]:
    return {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": url}}}}}


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://h?socket_timeout=3", "'socket_timeout' is not supported here; set queue.connect_timeout_seconds"),
        ("redis://h?visibility_timeout=3", "'visibility_timeout' is not supported here; set queue.visibility_timeout"),
        ("redis://h?db=3", "'db' is not supported here; write the number as the path"),
        ("redis://h?virtual_host=3", "'virtual_host' is not supported here; write the number as the path"),
        ("redis://h?password=hidden", "'password' is not supported here; write scheme://user:password@host"),
        ("rediss://h?health_check_interval=9", "'health_check_interval' is not supported here; known are protocol"),
        ("redis://h?protocol=4", "its parameter protocol should be 2 or 3"),
        ("redis://h?protocol=", "its parameter protocol should be 2 or 3"),
        ("redis://h?protocol=2&protocol=3", "its parameter protocol is given twice"),
        ("redis://h?client_name", "its parameter client_name should have a value"),
        ("redis://h/0#x", "it should not hold a #"),
        ("rediss://h?ssl_check_hostname=maybe", "its parameter ssl_check_hostname should be true or false"),
        ("rediss://h?ssl_ciphers=x", "'ssl_ciphers' is not supported here"),
        ("redis+socket:///v.sock?virtual_host=one", "its parameter virtual_host should be a whole number"),
        ("redis+socket:///v.sock?socket_timeout=3", "'socket_timeout' is not supported here"),
        ("amqp://h?heartbeat=often", "its parameter heartbeat should be a whole number"),
        ("amqp://h?connection_timeout=3", "'connection_timeout' is not supported here; set queue.connect_timeout"),
        ("amqps://h?ssl_check_hostname=true", "'ssl_check_hostname' is not supported here"),
        ("redis://:12?hid/den@h", "a parameter is not supported here"),
    ],
)
def test_a_parameter_that_would_fail_later_is_refused_by_name(url: str, part: str) -> None:
    message = refusal({"queue": {"broker_url": url, "result_backend": "redis://h"}})
    assert message.startswith("queue.broker_url: ")
    assert part in message
    assert "hid" not in message


def test_a_refused_parameter_of_the_results_is_named_too() -> None:
    message = refusal({"queue": {"result_backend": "redis://h?socket_timeout=3"}})
    assert message.startswith("queue.result_backend: the parameter 'socket_timeout' is not supported here")


def test_kombu_gets_redis_parameters_as_typed_options() -> None:
    url = "redis://:p@h:1/2?protocol=2&client_name=a%20b&credential_provider=pkg.mod:Class"
    conf = make_celery(Settings.from_mapping({"queue": {"broker_url": url}})).conf
    assert conf.broker_url == "redis://:p@h:1/2?credential_provider=pkg.mod%3AClass"
    assert conf.broker_transport_options["connection_parameters"] == {"protocol": 2, "client_name": "a b"}
    assert conf.result_backend == url


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("sqlite:///kv.db?journal=off", "the parameter 'journal' is not supported here; known are uri, mode"),
        ("sqlite:///kv.db?timeout=3", "'timeout' is not supported here; set busy_timeout_seconds beside the url"),
        ("sqlite:///kv.db?check_same_thread=1", "'check_same_thread' is not supported here"),
        ("sqlite:///kv.db?mode=ro", "SQLite's own parameters need both file: and uri=true"),
        ("sqlite:///kv.db?mode=ro&uri=true", "SQLite's own parameters need both file: and uri=true"),
        ("sqlite:///file:kv.db", "SQLite's own parameters need both file: and uri=true"),
        ("sqlite:///file:kv.db?mode=rx&uri=true", "its parameter mode should be ro, rw, rwc or memory"),
        ("sqlite:///kv.db#x", "it should not hold a #"),
        ("sqlite://kv.db", "a relative path starts after three slashes and an absolute one after four"),
        ("sqlite://var/kv.db", "a relative path starts after three slashes and an absolute one after four"),
    ],
)
def test_a_sqlite_url_that_would_mean_something_else_is_refused(url: str, part: str) -> None:
    message = refusal(sqlite(url))
    assert message.startswith("tools.kv_store.adapters.sqlite.url: ")
    assert part in message


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a b.db",
        "sqlite:////v/kv.db",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_usable_sqlite_urls_load(url: str) -> None:
    Settings.from_mapping(sqlite(url))
