"""Which hosts, ports and paths a broker's URL may have."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from kvworker.settings.urls import MAX_SOCKET_PATH_BYTES


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
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping({"queue": {"broker_url": url, "result_backend": "redis://h"}})
    assert str(caught.value).startswith("queue.broker_url: ")
    assert part in str(caught.value)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/3", "redis://:p%40x@[::1]:6379/0", "redis://", "amqp://u@h:5672/a/b", "amqp:///v"]
)
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert Settings.from_mapping({"queue": {"broker_url": url, "result_backend": "redis://h"}}).queue.broker_url == url
