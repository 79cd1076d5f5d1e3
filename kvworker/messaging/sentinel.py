"""Connections to the primary that Sentinel watches. They follow it after a fail-over.

Each connection asks a Sentinel for the primary when it connects. This suffices if the old primary is dead. But a frozen
one keeps its connections, and one that was demoted keeps them for seconds, in which it accepts writes that are then
lost. So while a process has such connections, a thread asks at each event and once a second, and ends those to any
other server. Everything that uses a connection then sees a lost one, which it survives anyway.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import Any, Final
from weakref import WeakSet

from redis import Connection, Redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.exceptions import AuthenticationError, MasterDownError, NoPermissionError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from kvworker.fork_safety import ForkAware, watch_forks
from kvworker.messaging.connection_faults import UnknownPrimaryError
from kvworker.messaging.credentials import SentinelFileCredentials
from kvworker.settings.sentinel_urls import SentinelAddress

logger = logging.getLogger(__name__)

_ASK_SECONDS: Final = 1.0
#: The thread ends after this long without a connection.
_IDLE_SECONDS: Final = 10.0
#: A Sentinel that takes longer is passed over. Its answer takes less than a millisecond.
_TIMEOUT_SECONDS: Final = 1.0
#: The event of the Sentinel that leads a fail-over, and the event of the others when they hear of its end.
_EVENTS: Final = ("+promoted-slave", "+switch-master")
_NO_PRIMARY: Final = (ReadOnlyError, MasterDownError)

_Host = tuple[str, int]
#: redis-py types it only in part.
_Connection: Any = Connection


class PrimaryConnection(_Connection):
    """A connection to the primary of the moment of connecting.

    Args:
        sentinel: Where to ask for the primary.
        health_check_interval: redis-py's argument. kombu before 5.7 omits it if the class does not name it.
        options: redis-py's other arguments. Host and port are replaced at each connect.
    """

    def __init__(self, *, sentinel: SentinelAddress, health_check_interval: float = 0, **options: Any) -> None:
        super().__init__(health_check_interval=health_check_interval, **options)
        self._primary = _primaries.get(sentinel) or _primaries.setdefault(sentinel, _Primary(sentinel))

    def _connect(self) -> Any:
        (self.host, self.port), self._named_by = self._primary.find()
        try:
            connected = super()._connect()
        except (ValueError, OverflowError) as error:
            self._primary.doubt(self._named_by)
            raise RedisConnectionError(f"Sentinel names an address that cannot be one: {error}") from error
        except (RedisError, OSError):
            self._primary.doubt(self._named_by)
            raise
        self._primary.follow(self)
        return connected

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read a response. A refusal because the server is a replica counts as a lost connection.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost. Where the server has refused the command, its
                refusal is the cause.
        """
        try:
            return super().read_response(*arguments, **options)
        except _NO_PRIMARY as error:
            self.disconnect()
            self._primary.doubt(self._named_by)
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica now; asking Sentinel again") from error


class _Primary(ForkAware):
    """The primary of some Sentinels, as this process knows it, and its connections. Thread-safe."""

    def __init__(self, sentinel: SentinelAddress) -> None:
        self._sentinel = sentinel
        self.after_fork_in_child()
        watch_forks(self)

    def after_fork_in_child(self) -> None:
        """Start over: the connections and their sockets are the parent's, and the child has no other thread."""
        self._lock = threading.Lock()
        self._connections: WeakSet[PrimaryConnection] = WeakSet()
        self._thread: threading.Thread | None = None
        self._followed_at = 0.0
        self._known: _Host | None = None
        # redis-py types its methods for synchronous and asynchronous clients at once.
        self._sentinels: list[Any] = [self._client(host, port) for host, port in self._sentinel.hosts]

    def find(self) -> tuple[_Host, Any]:
        """Ask the Sentinels, one after the other, and end the connections to any other server.

        Returns:
            The primary, and the client of the Sentinel that named it.

        Raises:
            redis.exceptions.ConnectionError: No Sentinel answers, or none knows the primary.
            redis.exceptions.AuthenticationError: The Sentinels want another user or password.
        """
        problems: list[RedisError] = []
        for client in tuple(self._sentinels):
            try:
                found: _Host | None = client.sentinel_get_master_addr_by_name(self._sentinel.master_name)
            except RedisError as error:
                problems.append(error)
                continue
            except Exception as error:  # noqa: BLE001 - redis-py trusts what a server answers
                problems.append(RedisConnectionError(f"a malformed answer ({type(error).__name__})"))
                continue
            if found is not None:
                self._prefer(client)
                self._learn(found)
                return found, client
        raise self._failure(problems)

    def doubt(self, client: Any) -> None:
        """Ask this Sentinel last from now on: it may name a wrong server, and another may know better."""
        first, *others = self._sentinels
        # Connections that fail together must not put it back in front.
        if first is client:
            self._sentinels = [*others, first]

    def follow(self, connection: PrimaryConnection) -> None:
        """End this connection, once it is connected, when the primary is another server."""
        with self._lock:
            self._connections.add(connection)
            self._followed_at = time.monotonic()
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._watch, name="kvworker-sentinel", daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter is ending
                    thread.start()
                    self._thread = thread

    def _watch(self) -> None:
        events = None
        while self._is_followed():
            events = self._wait(events)
            with contextlib.suppress(RedisError):  # the next round asks again, and connecting raises it
                self.find()

    def _is_followed(self) -> bool:
        with self._lock:
            # A connection that is being made has no socket yet.
            is_new = time.monotonic() - self._followed_at < _IDLE_SECONDS
            if is_new or any(connection._sock for connection in self._connections):
                return True
            self._thread = None
            return False

    def _wait(self, events: PubSub | None) -> PubSub | None:
        """Wait until the Sentinel announces another primary, but for a second at most."""
        try:
            if events is None:
                events = self._sentinels[0].pubsub()
                events.subscribe(*_EVENTS)
            events.get_message(timeout=_ASK_SECONDS)
        except Exception:  # noqa: BLE001 - redis-py trusts what a server answers
            time.sleep(_ASK_SECONDS)
            return None
        return events

    def _learn(self, primary: _Host) -> None:
        with self._lock:
            known, self._known = self._known, primary
            others = [each for each in self._connections if (each.host, each.port) != primary]
        if known not in {None, primary}:
            logger.warning("the primary %r is now %s:%d", self._sentinel.master_name, *primary)
        for connection in others:
            # Not closed: another thread may be reading from it.
            with contextlib.suppress(OSError, AttributeError):
                connection._sock.shutdown(socket.SHUT_RDWR)

    def _prefer(self, client: Any) -> None:
        """Ask this Sentinel first from now on."""
        if self._sentinels[0] is not client:
            self._sentinels = [client, *(other for other in self._sentinels if other is not client)]

    def _failure(self, problems: list[RedisError]) -> RedisError:
        shown = ", ".join(f"{host}:{port}" for host, port in self._sentinel.hosts)
        for problem in problems:
            if isinstance(problem, AuthenticationError | NoPermissionError):
                return AuthenticationError(
                    f"the Sentinels at {shown} refuse sentinel_username or sentinel_password of the URL: {problem}"
                )
        if len(problems) < len(self._sentinel.hosts):
            return UnknownPrimaryError(
                f"the Sentinels at {shown} know no primary named {self._sentinel.master_name!r}; correct master_name"
            )
        return RedisConnectionError(f"none of the Sentinels at {shown} answers: {problems[-1]}")

    def _login(self) -> dict[str, Any]:
        if self._sentinel.url_file is not None:
            return {"credential_provider": SentinelFileCredentials(self._sentinel.url_file)}
        return {"username": self._sentinel.username, "password": self._sentinel.password}

    def _client(self, host: str, port: int) -> Redis:
        return Redis(
            host=host,
            port=port,
            **self._login(),
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )


_primaries: dict[SentinelAddress, _Primary] = {}
