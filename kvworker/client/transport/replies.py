"""Reads the results of a client's calls: one thread and one connection for any number of callers.

Celery's Redis backend stores each result under a key and publishes it on a channel of the same name. All task ids of a
client start with one prefix, so the reader subscribes once, to that prefix. (Celery's own ``AsyncResult.get``
subscribes for every task, on a connection that threads must not share: celery#6335.)

Nothing depends on the published copy. After every connect, and once a second while someone waits, the reader also reads
the stored results. A reconnect may mean that the server restarted and lost messages, so the reader then reports the
replies that are still missing, for their messages to be sent again.

Callers wait for a future with their own timeouts, so none of them is stuck when this thread is.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from celery.states import READY_STATES
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from tenacity import RetryCallState, Retrying, sleep_using_event, stop_when_event_set

from kvworker.client.transport.wake_ups import WakeUps
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.connection_faults import refused_login
from kvworker.messaging.redis_connections import TRUSTED_IDLE_SECONDS, RedisConnection, connect, limit, timed_out
from kvworker.messaging.wake_ups import FREED_PERMITS
from kvworker.model import escaped
from kvworker.retries import BACKOFF

logger = logging.getLogger(__name__)

#: The interval at which the stored results are read, in case their published copies were lost.
RECHECK_SECONDS: Final = 1.0
#: Results that were read are deleted this many at a time, or with the next recheck.
_DELETE_BATCH: Final = 100


class Awaited(Protocol):
    """A reply that has not arrived yet."""

    @property
    def future(self) -> Future[Any]:
        """Resolved with the task's metadata."""


_Reply = TypeVar("_Reply", bound=Awaited)


class ReplyReader(Generic[_Reply]):
    """Resolves the future of each awaited reply with the metadata that Celery stores (a dict).

    Its thread also compares the clock that deadlines are set by.

    Args:
        backend: The result backend of the client's Celery application.
        task_id_prefix: The prefix of all task ids that are awaited here.
        on_reconnect: Called with the replies still awaited after a lost connection was replaced.
        on_recheck: Called once a second with the replies still awaited.
        clock: The clock to compare with the server's.
        on_refused: Called with the replies still awaited and the reason, each time that the server refuses this
            program's login or rights.

    Attributes:
        refusal: Why the server refuses this program; "" while it does not.
        wake_ups: Those who wait for a permit, woken by messages on the same connection.
    """

    def __init__(
        self,
        backend: Any,
        task_id_prefix: str,
        on_reconnect: Callable[[list[_Reply]], None],
        on_recheck: Callable[[list[_Reply]], None],
        clock: ServerClock,
        on_refused: Callable[[list[_Reply], str], None] | None = None,
    ) -> None:
        self._backend = backend
        self._on_reconnect = on_reconnect
        self._on_recheck = on_recheck
        self._on_refused = on_refused
        self.refusal = ""
        self._clock = clock
        self._pattern = _text(backend.get_key_for_task(task_id_prefix)) + "*"
        self.wake_ups = WakeUps(_text(backend.get_key_for_task(FREED_PERMITS)) + "*")
        # Weak: a reply whose caller gave up, or dropped its PendingResult, disappears from here.
        self._awaited: WeakValueDictionary[str, _Reply] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._has_awaited = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: RedisConnection | None = None
        self._read_keys: list[str | bytes] = []

    def register(self, task_id: str, reply: _Reply) -> None:
        """Resolve the reply's future when the task's result arrives. Keeps no strong reference to the reply."""
        with self._lock:
            self._awaited[task_id] = reply
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="kvworker-replies", daemon=True)
                thread.start()
                self._thread = thread
        self._has_awaited.set()

    def find(self, task_id: str) -> _Reply | None:
        """Return the awaited reply of a task, or None if its caller has given up."""
        return self._awaited.get(task_id)

    def runs_here(self) -> bool:
        """Tell whether the caller is this reader's thread, which must wait for no answer."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Stop the thread. Futures that are not resolved yet stay so."""
        self._closed.set()
        self._has_awaited.set()
        # The thread may be waiting for the server: end its connection to wake it.
        with contextlib.suppress(OSError, AttributeError):
            self._connection._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def _run(self) -> None:
        self._has_awaited.wait()
        self._read_until_closed()
        with contextlib.suppress(Exception):  # results that cannot be deleted expire
            self._delete_read()
        self._backend.connections.close()
        self._backend.client.connection_pool.disconnect()

    def _read_until_closed(self) -> None:
        # Every caller depends on this thread, so no error ends it.
        retrying = Retrying(
            wait=BACKOFF,
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            before_sleep=_log_failure,
            retry_error_callback=lambda _: None,
        )
        connections = itertools.count()
        for attempt in retrying:
            if self._closed.is_set():
                break
            with attempt, self._subscribed() as connection:
                self._clock.compare()
                if next(connections):
                    self._on_reconnect(self._still_awaited())
                attempt.retry_state.attempt_number = 1  # this attempt succeeded: pauses start over
                self._read(connection)

    @contextlib.contextmanager
    def _subscribed(self) -> Iterator[RedisConnection]:
        """Connect and subscribe. redis-py's own PubSub costs ten times as much for each result."""
        pool = self._backend.client.connection_pool
        # Protocol 3 would deliver published results between other replies, through callbacks.
        self._connection = connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 2})
        try:
            with self._noting_refusal():
                connect(connection)
                connection.send_command("PSUBSCRIBE", self._pattern, check_health=False)
                connection.read_response()
                # From now on no result is missed. Results stored before are read here.
                self._read_stored()
            limit(connection, RECHECK_SECONDS)
            yield connection
        finally:
            self.wake_ups.disconnected()
            connection.disconnect()

    @contextlib.contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        """End the wait of every caller if the server refuses this program. Waiting would not help them."""
        try:
            yield
        except RedisError as error:
            if refused_login(error):
                self.refusal = f"{type(error).__name__}: {escaped(str(error))}"
                if self._on_refused:
                    self._on_refused(self._still_awaited(), self.refusal)
            raise
        self.refusal = ""

    def _read(self, connection: RedisConnection) -> None:
        recheck_at, has_received = time.monotonic() + RECHECK_SECONDS, True
        ping_at = time.monotonic() + TRUSTED_IDLE_SECONDS
        while not self._closed.is_set():
            self.wake_ups.subscribe(connection)
            has_received = self._read_published(connection) or has_received
            if time.monotonic() >= recheck_at:
                if self._read_stored() and not has_received:
                    raise RedisConnectionError("results are stored, but their published copies do not arrive")
                self._on_recheck(self._still_awaited())
                self._delete_read()
                self._clock.keep()
                recheck_at, has_received = time.monotonic() + RECHECK_SECONDS, False
            if time.monotonic() >= ping_at:
                # A firewall or proxy may cut a connection that carries no traffic.
                connection.send_command("PING", check_health=False)
                ping_at = time.monotonic() + TRUSTED_IDLE_SECONDS

    def _read_published(self, connection: RedisConnection) -> bool:
        """Read the next message of the connection. False if none arrives within ``RECHECK_SECONDS``."""
        try:
            kind, *details = connection.read_response(disconnect_on_error=False)
        except RedisError as error:
            if timed_out(error):
                return False
            raise
        if details[0] == self.wake_ups.pattern:
            self._wake(kind, details[1])
        elif kind == b"pmessage":
            _, key, data = details
            if self._resolve(data):
                self._read_keys.append(key)
                if len(self._read_keys) >= _DELETE_BATCH:
                    self._delete_read()
        return True

    def _wake(self, kind: bytes, channel: bytes) -> None:
        if kind == b"pmessage":
            self.wake_ups.wake(channel)
        else:
            self.wake_ups.subscribed()

    def _read_stored(self) -> bool:
        """Read the stored results of all awaited replies. True if there was any."""
        with self._lock:
            keys = [self._backend.get_key_for_task(task_id) for task_id in self._awaited]
        if not keys:
            return False
        stored = self._backend.client.mget(keys)
        read = [key for key, data in zip(keys, stored, strict=True) if data and self._resolve(data)]
        self._read_keys += read
        return bool(read)

    def _still_awaited(self) -> list[_Reply]:
        with self._lock:
            return list(self._awaited.values())

    def _resolve(self, data: bytes) -> bool:
        """Resolve the future that a result belongs to. True if the result is final and can be deleted."""
        try:
            meta = self._backend.decode(data)
            is_final, task_id = meta["status"] in READY_STATES and "result" in meta, str(meta["task_id"])
        except Exception as error:  # noqa: BLE001 - anyone can write here, and a bad result must not end the thread
            logger.warning("a result cannot be read and is left alone: %s", type(error).__name__)
            return False
        if not is_final:
            return False
        with self._lock:
            reply = self._awaited.pop(task_id, None)
        if reply is not None:
            with contextlib.suppress(InvalidStateError):  # the caller cancelled it
                reply.future.set_result(meta)
        return True

    def _delete_read(self) -> None:
        keys, self._read_keys = self._read_keys, []
        if keys:
            self._backend.client.delete(*keys)


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.info("lost the result backend, trying again: %s", type(error).__name__)


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key
