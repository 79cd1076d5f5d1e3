"""One clock for deadlines."""

from __future__ import annotations

import logging
import time

import pytest

from kvworker.messaging.clock import ServerClock


def test_the_clock_is_this_machines_until_the_server_answers() -> None:
    def fail() -> float:
        raise OSError

    clock = ServerClock(fail)
    clock.keep()
    assert clock.now() == pytest.approx(time.time(), abs=0.1)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_is_corrected_and_logged(hours: int, caplog: pytest.LogCaptureFixture) -> None:
    clock = ServerClock(lambda: time.time() + hours * 3600)
    with caplog.at_level(logging.WARNING):
        clock.keep()
        clock.keep()
    assert clock.now() == pytest.approx(time.time() + hours * 3600, abs=0.1)
    (message,) = caplog.messages
    assert message.startswith(f"this machine's clock is {-hours * 3600:.1f} s off")


def test_the_server_is_asked_periodically() -> None:
    asked = []

    def read() -> float:
        asked.append(1)
        return time.time()

    clock = ServerClock(read)
    for _ in range(100):
        clock.keep()
    assert len(asked) == 1
    clock.compare()
    assert len(asked) == 2


def test_a_slow_answer_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.0, 5.0])
    clock = ServerClock(lambda: time.time() + 100)
    with monkeypatch.context() as patch:
        patch.setattr("kvworker.messaging.clock.time.monotonic", lambda: next(moments))
        clock.compare()
    assert clock.ahead == 0
