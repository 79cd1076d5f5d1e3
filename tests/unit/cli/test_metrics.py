"""``metrics`` where it cannot listen. The documentation's test runs it."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.unit.cli.conftest import Kvworker


def test_a_port_that_is_taken_is_one_line(kvworker: Kvworker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ran = kvworker("metrics", "--listen", port)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert f"cannot listen on {port}: Address already in use" in ran.err


def test_an_address_that_is_none_is_wrong_usage(kvworker: Kvworker) -> None:
    ran = kvworker("metrics", "--listen", "nowhere")
    assert (ran.code, ran.out) == (2, "")
    assert "it should be HOST:PORT" in ran.err


def test_a_missing_extra_is_one_line(kvworker: Kvworker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ran = kvworker("metrics")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "the exporter needs the extra `metrics`" in ran.err
