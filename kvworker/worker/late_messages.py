"""Messages that wait for too long: they are dropped before they reach the pool, many at once.

A worker that runs late would otherwise spend more time on calls whose callers have given up than on the others, and
never catch up. The results of dropped messages are stored together, so a caller that still asks is told.

If messages keep arriving late, each one that is still in time has almost no time left, and its answer comes too late as
well. So a worker that has been late for a while no longer waits for a message that is late: when it meets one that has
waited for three quarters of its timeout, it drops all that have waited for half of theirs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery import states
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from kvworker.errors import OperationExpiredError, OperationTimeoutError
from kvworker.messaging import wire
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.observer import Event
from kvworker.messaging.waiting import has_times
from kvworker.wording import noun
from kvworker.worker.unacked import UnackedRecord

logger = get_logger(__name__)

#: Overload begins when messages have been late for this long, without a fresh one among them. A worker that starts on a
#: backlog, but soon catches up, is not overloaded.
_LATE_SECONDS: Final = 1.0
#: Overload ends when no message has waited for three quarters of its timeout for this long.
_OVERLOAD_SECONDS: Final = 10.0
#: The most messages that one command drops from a queue.
_MOST_AT_ONCE: Final = 100
#: The time to collect dropped messages before their results are stored together. The event loop's own ``call_soon`` may
#: wait for seconds, until something else happens.
_COLLECT_SECONDS: Final = 0.05
#: The pause after the results could not be stored.
_RETRY_SECONDS: Final = 1.0
#: The shortest interval between two log lines.
_LOG_SECONDS: Final = 5.0
_SCRIPT: Final = Path(__file__).with_name("drop_late.lua").read_text(encoding="utf-8")


class _Late(NamedTuple):
    """A message that is dropped."""

    task_id: str
    task_name: str
    operation_id: str

    def result(self) -> tuple[str, Any]:
        """Return the state and the result to store for its caller."""
        if self.task_name == wire.APPLY_MANY_TASK:
            return states.SUCCESS, {"results": {}, wire.LATE: True}
        if self.operation_id:
            detail = "its message waited in the queue for too long, but an earlier one with this id may be applied"
            return states.FAILURE, OperationTimeoutError(self.operation_id, detail)
        return states.FAILURE, OperationExpiredError(self.task_id)


class LateMessages:
    """Drops the late messages of one consumer.

    Args:
        consumer: The worker's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._app = consumer.app
        # Where senders prove who they are, an unverified header must not fail the call whose id it names.
        self._trusts_headers = self._app.conf.task_serializer == "json"
        self._clock = ServerClock(self._app.backend.server_time)
        #: When the first late message arrived that no fresh one has followed since, and when overload ends; by the
        #: monotonic clock.
        self._late_since = self._overloaded_until = 0.0
        self._dropped: list[_Late] = []
        #: Where a dropped message came from, if more can be dropped from there by a script.
        self._channel: Any = None
        self._is_scheduled = False
        self._unlogged, self._log_at = 0, 0.0

    def drop(self, message: Any) -> bool:
        """Drop a message if it is too late. False if it must be handled."""
        waiting = _waiting_of(message) if self._trusts_headers else None
        if waiting is None:
            return False
        self._clock.keep()
        now = self._clock.now()
        if now < waiting["half_time"]:
            self._late_since = 0.0
            return False
        is_late, operation_id = now >= waiting["deadline"], waiting.get("operation_id", "")
        if now < (waiting["half_time"] + waiting["deadline"]) / 2:
            return False
        is_overloaded = self._is_overloaded(is_late=is_late)
        # Without overload, the pool asks the database whether another message has applied the operation.
        if not (is_overloaded or (is_late and not operation_id)):
            return False
        # This comes before its result is stored, so that the broker hands out the next one. If this worker dies in
        # between, the caller's wait ends with its timeout.
        message.ack_log_error(logger, self._consumer.connection_errors)
        self._dropped.append(_Late(message.headers["id"], message.headers["task"], operation_id))
        if isinstance(getattr(message.channel, "qos", None), UnackedRecord):
            self._channel = message.channel
        if self._consumer.hub:
            self._schedule(_COLLECT_SECONDS)
        else:
            self._run()
        return True

    def _is_overloaded(self, *, is_late: bool) -> bool:
        """Tell whether there is overload, given a message that has waited for most of its timeout."""
        now = time.monotonic()
        if is_late:
            self._late_since = self._late_since or now
        if now < self._overloaded_until or (self._late_since and now - self._late_since >= _LATE_SECONDS):
            self._overloaded_until = now + _OVERLOAD_SECONDS
            return True
        return False

    def _schedule(self, seconds: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._consumer.timer.call_after(seconds, self._run)

    def _run(self) -> None:
        """Answer the dropped messages, and drop more from the queue. An event loop does other work in between."""
        self._is_scheduled = False
        while self._dropped and self._answer():
            self._drop_more()
            if self._dropped and self._consumer.hub:
                self._schedule(0)
                return

    def _answer(self) -> bool:
        """Store the results of the dropped messages. False if that must be tried again."""
        dropped = self._dropped
        try:
            self._app.backend.store_many({late.task_id: late.result() for late in dropped})
        except (RedisError, OSError) as error:
            logger.warning("the results of %d late messages cannot be stored: %s", len(dropped), type(error).__name__)
            self._schedule(_RETRY_SECONDS)
            return False
        self._dropped = []
        self._app.runtime.observer.happened(Event.LATE_DROPPED, len(dropped))
        self._log(len(dropped))
        return True

    def _drop_more(self) -> None:
        """Drop late messages from the end of the queue, without receiving each."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        key = channel.global_keyprefix + self._app.conf.task_default_queue
        arguments = (key, self._clock.now(), _MOST_AT_ONCE, int(time.monotonic() < self._overloaded_until))
        try:
            with channel.conn_or_acquire() as client:
                found = client.execute_command("EVAL", _SCRIPT, 1, *arguments)
        except (RedisError, OSError) as error:
            # Without the right to run scripts, each message is received and dropped.
            logger.debug("late messages cannot be dropped from the queue: %s", error)
            return
        self._dropped = [_Late(*(part.decode() for part in parts)) for parts in found]
        if self._dropped:
            self._channel = channel

    def _log(self, count: int) -> None:
        self._unlogged += count
        if time.monotonic() >= self._log_at:
            messages = noun(self._unlogged, "message")
            logger.warning("dropped %d %s that waited in the queue for too long", self._unlogged, messages)
            self._unlogged, self._log_at = 0, time.monotonic() + _LOG_SECONDS


def _waiting_of(message: Any) -> dict[str, Any] | None:
    """Return the header by which a message is dropped. None if it has none, or an earlier delivery may be applied."""
    waiting = message.headers.get(wire.WAITING)
    is_usable = waiting is not None and not message.delivery_info.get("redelivered")
    return waiting if is_usable and _is_sound(message.headers, waiting) else None


def _is_sound(headers: Any, waiting: Any) -> bool:
    if not has_times(waiting) or not all(isinstance(headers.get(name), str) for name in ("id", "task")):
        return False
    return isinstance(waiting.get("operation_id", ""), str)
