"""How results reach a client: one connection, one thread, any number of waiting callers.

Celery's Redis backend stores each result under a key and publishes it on a channel of the same name.
A client gives all its tasks ids with one prefix and subscribes to that prefix once, where Celery's own
``AsyncResult.get`` subscribes and unsubscribes for every task, on a connection that threads must not
share (celery#6335). Nothing depends on the published copy: after every (re)connect, and once a second
while somebody waits, the stored results are read as well. After a reconnect, what still waits may have
been lost with the server (a message between Redis and a worker is), so its sender is told. A caller
waits on a future with its own timeout, so whatever this thread is stuck in, no caller is.
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
from typing import Any, Protocol
from weakref import WeakValueDictionary

from celery.states import READY_STATES
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from kvworker.messaging.clock import ServerClock
from kvworker.messaging.redis_connections import TRUSTED_IDLE_SECONDS, RedisConnection, connect, limit, timed_out

logger = logging.getLogger(__name__)

#: How often the stored results of waiting tasks are read, in case their published copy was lost.
RECHECK_SECONDS = 1.0
#: Results that were read are deleted this many at a time, or with the next recheck.
_FORGET_BATCH = 100
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 1.0


class Waiting(Protocol):
    """Somebody who waits for a result."""

    future: Future[Any]


class ReplyReader:
    """Resolves the futures of a client's tasks with the metadata that Celery stores (a dict).

    ``on_reconnect`` is called with all that still wait when the connection was lost and is back, ``on_recheck`` once a
    second with all that still wait. The thread also keeps the clock that deadlines are set by.
    """

    def __init__(
        self,
        backend: Any,
        task_id_prefix: str,
        on_reconnect: Callable[[list[Any]], None],
        on_recheck: Callable[[list[Any]], None],
        clock: ServerClock,
    ) -> None:
        self._backend = backend
        self._on_reconnect = on_reconnect
        self._on_recheck = on_recheck
        self._clock = clock
        self._pattern = _text(backend.get_key_for_task(task_id_prefix)) + "*"
        # Weak: a caller that gave up, or dropped its PendingResult, is forgotten without a word.
        self._waiting: WeakValueDictionary[str, Waiting] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._link: RedisConnection | None = None
        self._settled_keys: list[str | bytes] = []

    def expect(self, task_id: str, reply: Waiting) -> None:
        """Resolve the reply's future when the task's result arrives; keeps no strong reference to it."""
        with self._lock:
            self._waiting[task_id] = reply
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="kvworker-replies", daemon=True)
                thread.start()
                self._thread = thread
        self._wanted.set()

    def close(self) -> None:
        """Stop the thread; futures that are still waiting stay unresolved."""
        self._closed.set()
        self._wanted.set()
        # The thread is waiting for the server: wake it by the end of its connection, rather than wait with it.
        with contextlib.suppress(OSError, AttributeError):
            self._link._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def _run(self) -> None:
        self._serve()
        with contextlib.suppress(Exception):  # what cannot be deleted expires
            self._forget_settled()
        self._backend.connections.close()
        self._backend.client.connection_pool.disconnect()

    def _serve(self) -> None:
        pause, connections = _FIRST_PAUSE_SECONDS, itertools.count()
        while not self._closed.is_set():
            self._wanted.wait()
            try:
                with self._subscribed() as link:
                    # From now on nothing is missed; what was stored before is read here.
                    self._read_stored()
                    self._clock.compare()
                    if next(connections):
                        self._on_reconnect(self._still_waiting())
                    pause = _FIRST_PAUSE_SECONDS
                    self._read(link)
            except Exception as error:  # noqa: BLE001 - all callers depend on this thread: it goes on whatever it is
                if self._closed.is_set():
                    return
                logger.info("the result backend went away, trying again: %s", type(error).__name__)
                self._closed.wait(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _subscribed(self) -> Iterator[RedisConnection]:
        """A connection that gets the published results; redis-py's PubSub costs ten times as much for each."""
        pool = self._backend.client.connection_pool
        # In the third version of the protocol, what is published comes in between replies, by way of callbacks.
        self._link = link = pool.connection_class(**{**pool.connection_kwargs, "protocol": 2})
        try:
            connect(link)
            link.send_command("PSUBSCRIBE", self._pattern, check_health=False)
            link.read_response()
            limit(link, RECHECK_SECONDS)
            yield link
        finally:
            link.disconnect()

    def _read(self, link: RedisConnection) -> None:
        recheck_at, heard = time.monotonic() + RECHECK_SECONDS, True
        ping_at = time.monotonic() + TRUSTED_IDLE_SECONDS
        while not self._closed.is_set():
            heard = self._read_published(link) or heard
            if time.monotonic() >= recheck_at:
                if self._read_stored() and not heard:
                    raise RedisConnectionError("results are stored, but their published copies do not arrive")
                self._on_recheck(self._still_waiting())
                self._forget_settled()
                self._clock.keep()
                recheck_at, heard = time.monotonic() + RECHECK_SECONDS, False
            if time.monotonic() >= ping_at:
                # Something on the way may cut a connection on which nothing moves.
                link.send_command("PING", check_health=False)
                ping_at = time.monotonic() + TRUSTED_IDLE_SECONDS

    def _read_published(self, link: RedisConnection) -> bool:
        """Read what arrives next; False if nothing does for a while."""
        try:
            kind, *details = link.read_response(disconnect_on_error=False)
        except RedisError as error:
            if timed_out(error):
                return False
            raise
        if kind == b"pmessage":
            _, key, data = details
            if self._resolve(data):
                self._settled_keys.append(key)
                if len(self._settled_keys) >= _FORGET_BATCH:
                    self._forget_settled()
        return True

    def _read_stored(self) -> bool:
        """Read the stored results of all that wait; True if there was any."""
        with self._lock:
            keys = [self._backend.get_key_for_task(task_id) for task_id in self._waiting]
        if not keys:
            return False
        stored = self._backend.client.mget(keys)
        done = [key for key, data in zip(keys, stored, strict=True) if data and self._resolve(data)]
        self._settled_keys += done
        return bool(done)

    def _still_waiting(self) -> list[Waiting]:
        with self._lock:
            return list(self._waiting.values())

    def _resolve(self, data: bytes) -> bool:
        """Hand a result to whoever waits for it; True if it is final and can be forgotten."""
        try:
            meta = self._backend.decode(data)
            status, task_id = meta["status"], meta["task_id"]
        except Exception as error:  # noqa: BLE001 - whoever wrote it: one bad result must not end the thread
            logger.warning("a result cannot be read and is left alone: %s", type(error).__name__)
            return False
        if status not in READY_STATES:
            return False
        with self._lock:
            reply = self._waiting.pop(task_id, None)
        if reply is not None:
            with contextlib.suppress(InvalidStateError):  # its caller cancelled it
                reply.future.set_result(meta)
        return True

    def _forget_settled(self) -> None:
        keys, self._settled_keys = self._settled_keys, []
        if keys:
            self._backend.client.delete(*keys)


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key
