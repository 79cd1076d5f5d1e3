"""Those of this process who wait for a permit, and the subscription that tells them when one is free.

``kvworker.messaging.wake_ups`` describes the messages. The reader of replies receives them on its connection.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Self

from kvworker.messaging.redis_connections import RedisConnection


class PermitWatch:
    """Someone who waits for a permit. ``wake`` may be called in any thread. This one is never woken."""

    @property
    def is_listening(self) -> bool:
        """True while a wake-up would most likely arrive."""
        return False

    def close(self) -> None:
        """End the watch."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class WakeUps:
    """The watches of one process. Thread-safe.

    Args:
        pattern: The pattern of all channels.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern.encode()
        self._lock = threading.Lock()
        self._watches: dict[bytes, deque[_ChannelWatch]] = {}
        #: The connection that was asked to subscribe.
        self._asked: RedisConnection | None = None
        self.is_listening = False

    def watch(self, channel: str, wake: Callable[[], object]) -> PermitWatch:
        """Call ``wake`` after each message of a channel, until the watch is closed.

        It is also called once the subscription begins. Ask the store then: an earlier message was not received.
        """
        watch = _ChannelWatch(self, channel.encode(), wake)
        with self._lock:
            self._watches.setdefault(watch.channel, deque()).append(watch)
        return watch

    def subscribe(self, connection: RedisConnection) -> None:
        """Subscribe on the reader's connection, once it is needed. Called by the reader's thread."""
        if self._watches and self._asked is not connection:
            self._asked, self.is_listening = connection, False
            connection.send_command("PSUBSCRIBE", self.pattern, check_health=False)

    def subscribed(self) -> None:
        """Note that the server has subscribed this client, and wake everyone."""
        self.is_listening = True
        with self._lock:
            watches = [watch for found in self._watches.values() for watch in found]
        for watch in watches:
            watch.wake()

    def disconnected(self) -> None:
        """Note that the connection was lost."""
        self._asked, self.is_listening = None, False

    def wake(self, channel: bytes) -> None:
        """Wake the one who has waited longest on a channel: there is one permit for all of them."""
        with self._lock:
            watches = self._watches.get(channel)
            if not watches:
                return
            watch = watches[0]
            watches.rotate(-1)
        watch.wake()

    def forget(self, watch: _ChannelWatch) -> None:
        """Remove a watch, if it is there."""
        with self._lock:
            watches = self._watches.get(watch.channel)
            if watches and watch in watches:
                watches.remove(watch)
                if not watches:
                    del self._watches[watch.channel]


class _ChannelWatch(PermitWatch):
    """A watch of one channel."""

    def __init__(self, wake_ups: WakeUps, channel: bytes, wake: Callable[[], object]) -> None:
        self._wake_ups = wake_ups
        self.channel = channel
        self.wake = wake

    @property
    def is_listening(self) -> bool:
        """True while the process is subscribed."""
        return self._wake_ups.is_listening

    def close(self) -> None:
        """End the watch."""
        self._wake_ups.forget(self)
