"""What is mended in kombu."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from celery.backends.redis import RedisBackend
from kombu.transport.redis import Channel, QoS

from kvworker.messaging import kombu_patches


@pytest.mark.parametrize(
    "attribute",
    [vars(Channel)["client"], vars(RedisBackend)["client"], vars(QoS)["unacked_key"]],
    ids=["channel", "results", "unacked"],
)
def test_a_child_does_not_inherit_a_lock_that_another_thread_held(attribute: Any) -> None:
    kombu_patches.apply()
    if not hasattr(attribute, "lock"):
        pytest.fail("it is no cached property with a lock any more: the mend may go")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with attribute.lock:
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    pid = os.fork()
    if not pid:
        os._exit(0 if attribute.lock.acquire(timeout=1) else 1)
    _, status = os.waitpid(pid, 0)
    done.set()
    holder.join()
    assert status == 0
