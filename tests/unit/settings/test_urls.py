"""The URLs of broker and results: which are refused, and what becomes of the others."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from kvworker.settings import QueueSettings, Settings
from kvworker.settings.urls import MAX_SOCKET_PATH_BYTES
from tests.support.refusals import refusal


def test_the_kernel_accepts_the_longest_socket_path_and_no_longer_one() -> None:
    with tempfile.TemporaryDirectory(prefix="kv-") as directory:
        longest = str(Path(directory) / "x").ljust(MAX_SOCKET_PATH_BYTES, "x")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(longest)
        with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match="too long"):
            listener.bind(longest + "x")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://h:99999/0", "its port should be between 1 and 65535"),
        ("redis://h:0", "its port should be between 1 and 65535"),
        ("redis://h:port", "its host and port cannot be read; in a user name or password, write : / ? # @"),
        ("redis://[::1/0", "its host and port cannot be read"),
        ("redis://u:hid/den@h/0", "its host and port cannot be read"),
        ("redis://u:h@hid/den@h/0", "its host and port cannot be read"),
        ("amqp://u:h@hid/den@h/host", "its host and port cannot be read"),
        ("redis://h/zero", "its path should be the number of a Redis database"),
        (f"redis://{'h' * 64}.example/0", "its host name is not valid"),
        ("redis://h..example/0", "its host name is not valid"),
    ],
)
def test_an_unusable_address_is_refused_with_its_own_reason(url: str, part: str) -> None:
    message = refusal({"queue": {"broker_url": url, "result_backend": "redis://h"}})
    assert message.startswith("queue.broker_url: ")
    assert part in message
    assert "hid" not in message


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/3", "redis://:p%40x@[::1]:6379/0", "redis://", "amqp://u@h:5672/a/b", "amqp:///v"]
)
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert Settings.from_mapping({"queue": {"broker_url": url, "result_backend": "redis://h"}}).queue.broker_url == url


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://h:6379/3", "redis://h:6379/3"),
        ("REDIS://h", "redis://h"),
        ("valkey://:p@h:6379/0", "redis://:p@h:6379/0"),
        ("valkeys://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h?protocol=2", "rediss://h?protocol=2&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis+socket:///run/v.sock?virtual_host=2", "redis+socket:///run/v.sock?virtual_host=2"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
    ],
)
def test_redis_urls_are_normalized_for_kombu(url: str, wanted: str) -> None:
    queue = QueueSettings(broker_url=url)
    assert queue.broker_url == wanted
    assert queue.result_backend == wanted


def test_a_relative_socket_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a b#c"
    odd.mkdir()
    monkeypatch.chdir(odd)
    url = QueueSettings(broker_url="redis+socket://run/v.sock?virtual_host=1").broker_url
    assert url == f"redis+socket://{tmp_path}/a%20b%23c/run/v.sock?virtual_host=1"


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp"])
def test_rabbitmq_needs_a_redis_for_results(scheme: str) -> None:
    broker_url = f"{scheme}://u:p@h:5672/vhost"
    assert refusal({"queue": {"broker_url": broker_url}}).startswith("queue.result_backend: it is required")
    data = {"queue": {"broker_url": broker_url, "result_backend": "valkey://h/1"}}
    assert Settings.from_mapping(data).queue.result_backend == "redis://h/1"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "redis:/h:hidden@x",
        "http://u:hidden@h",
        "redis://u:hidden@h:port/0",
        "redis://u:hidden@h:99999/0",
        "redis://u:hidden@h:0/0",
        "redis://u:hidden@h/zero",
        "redis://u:hid/den@h/0",
        "redis://u:hid den@h/0",
        "redis://[::1/0",
        "redis+socket:///",
        "redis+socket://user:hidden@/run/v.sock",
        "redis+socket://:hidden/hidden@run/v.sock",
        "redis+socket:///hidden" + "x" * 120,
        "sentinel://u:hidden@h",
        "redis://u:hidden@h?ssl_cert_reqs=required",
        "rediss://u:hidden@h?ssl_cert_reqs=perhaps",
        "rediss://u:hidden@h?ssl_ca_certs=/no/such/file",
    ],
)
@pytest.mark.parametrize("key", ["broker_url", "result_backend"])
def test_an_unusable_queue_url_is_refused_and_not_shown(key: str, url: str) -> None:
    message = refusal({"queue": {key: url}})
    assert message.startswith(f"queue.{key}: ")
    assert "hid" not in message.replace("which", "")


def test_results_are_kept_in_redis_only() -> None:
    assert refusal({"queue": {"result_backend": "amqp://h"}}).startswith("queue.result_backend: it should be a URL")
