"""Failed attempts are counted, logged without end-less lines, and answered later and later."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kvworker.access import FailedAttempts
from kvworker.access import failures as module


class Time:
    """A clock and a sleep that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(asyncio, "sleep", time.sleep)
    return time


def fail(attempts: FailedAttempts, address: str | None, times: int = 1) -> None:
    async def fail() -> None:
        for _ in range(times):
            assert await attempts.slow_down(address)

    asyncio.run(fail())


def test_the_first_failures_are_answered_at_once_and_the_others_later_and_later(time: Time) -> None:
    attempts = FailedAttempts("a server", time)
    fail(attempts, "192.0.2.1", 30)
    assert time.slept[:4] == [0.1, 0.2, 0.4, 0.8]
    assert time.slept[-1] == 5
    assert len(time.slept) == 25
    fail(attempts, "192.0.2.2")
    time.now += 61
    fail(attempts, "192.0.2.1")
    assert len(time.slept) == 25
    assert attempts.total == 32


def test_a_client_writes_few_lines_and_its_address_is_in_them(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fail(FailedAttempts("the MCP server", time), "192.0.2.1", 1000)
    assert len(caplog.messages) == 10
    assert caplog.messages[3] == (
        "the MCP server: access denied to a client at 192.0.2.1, which has failed 8 times; 8 failures in all"
    )


@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        (["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:1::"], "2001:db8::/64"),
        (["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.1"),
        ([None, "", "unix:", "evil\n2027 ERROR", "1.2.3.4, 5.6.7.8"], "an unknown address"),
    ],
)
def test_addresses_that_one_client_can_choose_from_count_together(
    time: Time, caplog: pytest.LogCaptureFixture, addresses: list[str | None], shown: str
) -> None:
    attempts = FailedAttempts("a server", time)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for address in addresses:
                fail(attempts, address)
    assert len(time.slept) == len(addresses) * 3 - 5
    assert all(f" at {shown}, " in message for message in caplog.messages)


def test_memory_and_held_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = FailedAttempts("a server")
    for number in range(10_000):
        attempts._count(f"address {number}")
    assert len(attempts._clients) == module._MAX_ADDRESSES
    attempts._clients.clear()
    monkeypatch.setattr(module, "_FREE", 0)
    monkeypatch.setattr(module, "_FIRST_DELAY_SECONDS", 1000.0)
    monkeypatch.setattr(module, "_MAX_DELAY_SECONDS", 1000.0)

    async def flood() -> list[bool]:
        """Fail from many addresses at once, and return the answers that came without a wait."""
        tasks = [
            asyncio.create_task(attempts.slow_down(f"192.0.{address}.1")) for address in range(100) for _ in range(20)
        ]
        done, held = await asyncio.wait(tasks, timeout=0.5)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert len(held) == module._MAX_HELD
        return [task.result() for task in done]

    assert set(asyncio.run(flood())) == {False}
    # Those whose clients gave up make room.
    assert attempts._held == 0
    assert all(client.held == 0 for client in attempts._clients.values())
