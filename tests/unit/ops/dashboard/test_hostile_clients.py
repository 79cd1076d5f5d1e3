"""Clients that would use up what others need."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.types import Message

from kvworker import Settings
from kvworker.access import TokenFile
from kvworker.messaging.queue_readiness import QueueReadiness
from kvworker.ops.dashboard.viewers import Viewers
from tests.unit.ops.dashboard.conftest import Browser, Open


async def ask(browser: Browser, method: str, path: str, messages: Sequence[Message]) -> list[int]:
    """Send a request as a server does, and return the status of the answer."""
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [(b"host", b"localhost")]}
    incoming, statuses = iter(messages), list[int]()

    async def receive() -> Message:
        if (message := next(incoming, None)) is None:
            await anyio.sleep_forever()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await browser.app(scope, receive, send)
    return statuses


def test_a_form_that_is_cut_off_logs_nothing(open_dashboard: Open, caplog: pytest.LogCaptureFixture) -> None:
    messages: Sequence[Message] = [
        {"type": "http.request", "body": b"token=", "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert anyio.run(ask, open_dashboard(), "POST", "/sign-in", messages) == [400]
    assert caplog.records == []


def test_probes_that_wait_for_a_frozen_broker_hold_up_no_page(
    open_dashboard: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    thaw = threading.Event()
    monkeypatch.setattr(QueueReadiness, "problem", lambda _self: "" if thaw.wait(60) else "frozen")
    browser = open_dashboard()

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(ask, browser, "GET", "/readyz", ())
            try:
                with anyio.fail_after(30):
                    assert await ask(browser, "GET", "/static/dashboard.css", ()) == [200]
            finally:
                thaw.set()

    anyio.run(scenario)


def test_many_sessions_of_one_token_end_no_other(mapping: dict[str, Any], tmp_path: Path) -> None:
    viewers = Viewers(Settings.from_mapping(mapping, environ={}), None, TokenFile(tmp_path / "tokens"))
    mine = viewers.open("mine")
    others = [viewers.open("other") for _ in range(1001)]
    assert viewers.find(mine) is not None
    assert viewers.find(others[-1]) is not None
    assert viewers.find(others[0]) is None
