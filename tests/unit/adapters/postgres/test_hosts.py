"""The order in which the hosts of a URL are tried."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.postgres.hosts import HostOrder

TWO = {"host": "a,b", "port": "1,2", "target_session_attrs": "read-write"}


def test_the_url_gives_the_order() -> None:
    assert HostOrder().ordered(TWO) == TWO


def test_a_host_that_fell_silent_comes_last() -> None:
    order = HostOrder()
    order.record_silent(TWO, ("a", "1"))
    assert order.ordered(TWO) == {**TWO, "host": "b,a", "port": "2,1"}


def test_a_host_that_was_passed_over_comes_last_until_it_accepts_a_connection() -> None:
    order = HostOrder()
    order.record_connected(TWO, ("b", "2"))
    swapped = order.ordered(TWO)
    assert swapped["host"] == "b,a"
    order.record_connected(swapped, ("a", "1"))
    assert order.ordered(TWO)["host"] == "a,b"


def test_a_port_that_the_url_leaves_out_is_the_default() -> None:
    order, arguments = HostOrder(), {"host": "a,b", "port": ","}
    order.record_silent(arguments, ("a", "5432"))
    assert order.ordered(arguments) == {"host": "b,a", "port": ","}


def test_hosts_may_share_a_port() -> None:
    order, arguments = HostOrder(), {"host": "a,b", "port": 5433}
    order.record_silent(arguments, ("a", "5433"))
    assert order.ordered(arguments) == {"host": "b,a", "port": "5433,5433"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": "a"},
        {"dbname": "d"},
        {"host": "a,b", "hostaddr": "10.0.0.1,10.0.0.2"},
        {"host": "a,b", "load_balance_hosts": "random"},
        {"host": "a,b,c", "port": "1,2"},
    ],
)
def test_other_arguments_stay_as_they_are(arguments: dict[str, Any]) -> None:
    order = HostOrder()
    order.record_silent(arguments, ("a", "5432"))
    assert order.ordered(arguments) == arguments
