"""Where to listen is an address with a port or a range of ports."""

from __future__ import annotations

import pytest

from kvworker.settings.hosts import listen_addresses


@pytest.mark.parametrize(
    ("text", "host", "ports"),
    [
        ("9820", "127.0.0.1", [9820]),
        ("0.0.0.0:9820", "0.0.0.0", [9820]),  # noqa: S104 - it is only parsed
        (" [::1]:9820-9821 ", "::1", [9820, 9821]),
        ("metrics.internal:1-2", "metrics.internal", [1, 2]),
    ],
)
def test_an_address_has_a_host_and_ports(text: str, host: str, ports: list[int]) -> None:
    found, numbers = listen_addresses(text)
    assert (found, list(numbers)) == (host, ports)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        ("::1:9820", "HOST:PORT"),
        ("http://h:9820", "HOST:PORT"),
        ("0", "between 1 and 65535"),
        ("1-65536", "between 1 and 65535"),
        ("9-8", "below its first"),
        ("a..b:9820", "host name"),
    ],
)
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        listen_addresses(text)
