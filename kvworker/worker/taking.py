"""Takes a worker's messages from Redis. While there are more, each is taken and recorded in one step.

kombu waits for a message with ``BRPOP`` and records it when the answer was read. A worker that is killed in between,
which on a busy one takes milliseconds, loses the message. The facades send such a message again, but a canvas does not.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from celery.utils.log import get_logger
from kombu.transport.redis import Transport
from redis.exceptions import ResponseError

from kvworker.messaging.application import BrokerConnection
from kvworker.messaging.redis_transport import RedisChannel, RedisTransport
from kvworker.worker.unacked import UnackedRecord

logger = get_logger(__name__)

_SCRIPT: Final = Path(__file__).with_name("take.lua").read_text(encoding="utf-8")
#: The time to work without the script after the server refused it: the user may not run it, or memory is full.
_REFUSED_SECONDS: Final = 30.0
#: After how many messages, at most, to try the script again where it found none: each try is a request more.
_MOST_SKIPPED: Final = 16


class WorkerChannel(RedisChannel):
    """A channel that takes messages by a script while its queues hold some, and waits with ``BRPOP`` for the next one.

    A worker that starts, or has put a message back, tries the script first. Where messages come one by one, the script
    finds none each time. It is then tried for one message in 17.

    Attributes:
        recorded: The delivery tag of a message that was just taken and recorded; empty once somebody holds it.
    """

    QoS = UnackedRecord
    recorded: bytes = b""
    _may_hold_some = True
    _asked_script = False
    _refused_until = 0.0
    #: The number of messages to take without the script, and that number the last time.
    _to_skip = _skipped = 0

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._asked_script = self._may_hold_some and not self._to_skip and time.monotonic() >= self._refused_until
        if not self._asked_script:
            self._to_skip -= self._may_hold_some and self._to_skip > 0
            super()._brpop_start(timeout)
        elif queues := self._queue_cycle.consume(len(self.active_queues)):
            self._in_poll, self._brpop_sent_at = self.client.connection, time.monotonic()
            self.client.connection.send_command("EVAL", _SCRIPT, *self._script_arguments(queues))

    def _script_arguments(self, queues: list[str]) -> list[Any]:
        names = [(self._q_for_pri(queue, priority), queue) for priority in self.priority_steps for queue in queues]
        keys = [*(key for key, _ in names), self.unacked_key, self.unacked_index_key]
        prefixed = [f"{self.global_keyprefix}{key}" for key in keys]
        return [len(prefixed), *prefixed, self.max_message_bytes, *(queue for _, queue in names)]

    def expect_message(self) -> None:
        """Try the script at the next request, because a message was put back."""
        self._may_hold_some, self._to_skip = True, 0

    def _brpop_read(self, **options: Any) -> Any:
        """Read the answer to either request, and forget a recorded message that is not taken over."""
        self._may_hold_some = False
        try:
            found = super()._brpop_read(**options)
            self._may_hold_some = True
            return found
        finally:
            if self._asked_script:
                self._skipped = 0 if self._may_hold_some else min(2 * self._skipped + 1, _MOST_SKIPPED)
                self._to_skip = self._skipped
            if self.recorded:
                self.qos.forget(self.recorded)
                self.recorded = b""

    def _checked_item(self, answer: Any, **options: Any) -> Any:
        if answer and len(answer) == len(("queue", "item", "tag")):
            *answer, self.recorded = answer
        return super()._checked_item(answer, **options)

    def _report_refusal(self, error: ResponseError) -> None:
        """Do without the script for a while if the server refuses it, which then has handed out no message."""
        if self._asked_script:
            if not self._refused_until:
                logger.warning("the broker refuses to take and record a message in one step: %s", error)
            self._refused_until = time.monotonic() + _REFUSED_SECONDS
        else:
            super()._report_refusal(error)


class WorkerTransport(RedisTransport):
    """The Redis transport of workers."""

    Channel = WorkerChannel


class WorkerConnection(BrokerConnection):
    """A connection to the broker that a worker consumes from."""

    redis_transport: type[Transport] = WorkerTransport
