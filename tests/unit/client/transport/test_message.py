"""The delivery state of a message."""

from __future__ import annotations

import pytest

from kvworker.client.transport.message import Message


def test_each_copy_of_a_message_has_more_time_before_it_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("kvworker.client.transport.message.time.monotonic", lambda: now)
    message = Message("task", "id", {}, "", give_up_at=2000.0)
    now += 60
    assert not message.is_doubtful()
    for seconds in (2, 4, 6):
        assert message.begin_write()
        now += seconds
        assert not message.is_doubtful()
        now += 0.1
        assert message.is_doubtful()
    message.abandon()
