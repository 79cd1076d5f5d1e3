"""The address of a server is judged by what its host resolves to, not by its text."""

from __future__ import annotations

import pytest

from kvworker import ConfigurationError
from kvworker.access import Address

EVERY_INTERFACE = ["0", "0x0", "000.0.0.0", "0.0.0.0", "::"]  # noqa: S104 - they are refused


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "localhost", "::1"])
def test_only_this_machine_reaches_its_loopback(host: str) -> None:
    assert Address(host, 0).is_loopback
    assert Address(host, 0).host_names()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", *EVERY_INTERFACE])
def test_other_machines_reach_the_rest(host: str) -> None:
    assert not Address(host, 0).is_loopback


@pytest.mark.parametrize("host", EVERY_INTERFACE)
def test_listening_on_every_interface_requires_host_names(host: str) -> None:
    with pytest.raises(ConfigurationError, match="covers every interface: name the hosts"):
        Address(host, 0).host_names()
    assert "kv.example" in Address(host, 0, ("kv.example",)).host_names()


@pytest.mark.parametrize("host", ["", "a..b", "x" * 70, "127.0.0.1:80"])
def test_an_unresolvable_host_is_refused(host: str) -> None:
    for ask in (lambda: Address(host, 0).is_loopback, Address(host, 0).host_names, Address(host, 0).listen):
        with pytest.raises(ConfigurationError, match=f"cannot listen on '{host}', port 0: .+"):
            ask()


def test_it_listens_on_the_resolved_address() -> None:
    address = Address("127.1", 0)
    with address.listen() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert address.url(listener, "/mcp") == f"http://127.1:{listener.getsockname()[1]}/mcp"
