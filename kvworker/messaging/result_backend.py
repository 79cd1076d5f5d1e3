"""Celery's Redis result backend with less work for each result; keys and contents are the same.

A stock application can read these results, wait for them (``AsyncResult``, canvas, Flower), and store its own beside
them. There are two differences:

- A first delivery's SUCCESS is stored without reading the stored result first. Celery reads it so that a failure
  never overwrites a success, and so that the first of two successes stays. Every other state, and every result of a
  redelivered message, is still stored in Celery's way. So at most the success of another delivery is overwritten,
  which is the result of the same operation.
- The result is stored and published by two commands in one packet, not in a transaction. If the connection breaks
  between them, Celery retries both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from celery import Celery, states
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError, ResponseError

from kvworker.fork_safety import with_own_property_locks
from kvworker.messaging.credentials import login_parameters
from kvworker.messaging.redis_connections import RedisConnection, RedisConnectionPool, exchange, server_time
from kvworker.settings.sentinel_urls import SENTINEL_SCHEME

logger = logging.getLogger(__name__)

_MAX_IDLE = 64
_CLAIM_POLL_SECONDS = 0.2


def use_result_backend(app: Celery, backend: type[ResultBackend]) -> None:
    """Make an application use one of our backends for each Redis URL.

    The URL could name the class instead (``module:Class+redis://...``), but Celery would then show its password.

    Args:
        app: An application of ours.
        backend: This class, or a subclass of it.
    """
    path = f"{backend.__module__}:{backend.__name__}"
    app.loader.override_backends = dict.fromkeys(("redis", "rediss", SENTINEL_SCHEME), path)


@with_own_property_locks
class ResultBackend(RedisBackend):
    """The result backend of workers and clients."""

    @cached_property
    def connections(self) -> RedisConnectionPool:
        """The connections that results are stored on."""
        return RedisConnectionPool(self.new_connection, max_idle=_MAX_IDLE)

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        more = self._transport_options.get("connection_parameters", {})
        return login_parameters(super()._params_from_url(url, defaults), more)

    def server_time(self) -> float:
        """Ask the results' server for its clock, in seconds since the epoch.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached, or refuses the command.
        """
        connection = self.connections.acquire()
        try:
            now = server_time(connection)
        except BaseException:
            connection.disconnect()
            raise
        self.connections.give_back(connection)
        return now

    def tell_freed(self, names: Iterable[str]) -> None:
        """Publish wake-ups. If that fails, those who wait find out by themselves."""
        commands = [("PUBLISH", self.get_key_for_task(name), "") for name in names]
        if not commands:
            return
        try:
            connection = self.connections.acquire()
            exchange(connection, connection.pack_commands(commands), replies=len(commands))
        except RedisError as error:
            logger.info("a wake-up could not be published: %s", type(error).__name__)
        else:
            self.connections.give_back(connection)

    def store_many(self, results: Mapping[str, tuple[str, Any]]) -> None:
        """Store the results of messages that no task ran, in two round trips. A stored success stays, as in Celery.

        Args:
            results: The state and the result, or the exception, by task id.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached, or refuses a command.
        """
        keys = [self.get_key_for_task(task_id) for task_id in results]
        connection = self.connections.acquire()
        try:
            (stored,) = exchange(connection, connection.pack_commands([("MGET", *keys)]), replies=1)
            commands: list[tuple[Any, ...]] = []
            for key, data, (task_id, (state, result)) in zip(keys, stored, results.items(), strict=True):
                if data and self.decode_result(data)["status"] == states.SUCCESS:
                    continue
                meta = self._get_result_meta(self.encode_result(result, state), state, traceback=None, request=None)
                commands += self._commands(key, self.encode({**meta, "task_id": task_id}))
            exchange(connection, connection.pack_commands(commands), replies=len(commands))
        except BaseException:
            connection.disconnect()
            raise
        self.connections.give_back(connection)

    def store_failure_once(self, task_id: str, error: Exception) -> None:
        """Store a failure as ``mark_as_failure`` does, but without retries: the event loop must not wait for long.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached, or refuses the command.
        """
        self._store_result(task_id, self.encode_result(error, states.FAILURE), states.FAILURE)

    def on_chord_part_return(self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any) -> None:
        """Count a task as a part of its chord, and send the body after the last part, as Celery does.

        Fault in Celery 5.7.0: the process that counts the last part claims the chord for some seconds, and if it is
        killed before it has sent the body, the part that is delivered again finds the claim and gives up. Therefore
        this waits until the claim has ended: the body is sent, or the claim has expired and is taken over. Not reported
        upstream.
        """
        super().on_chord_part_return(request, state, result, propagate, **kwargs)
        while request.group and _is_redelivered(request) and self._is_claimed(request.group):
            time.sleep(_CLAIM_POLL_SECONDS)
            super().on_chord_part_return(request, state, result, propagate, **kwargs)

    def _is_claimed(self, group: str) -> bool:
        return self.client.get(self.get_key_for_group(group, ".c")) not in {None, b"done"}

    def decode_result(self, payload: Any) -> Any:
        """Decode a stored result. One that cannot be decoded counts as missing, so that the real one replaces it.

        Fault in Celery 5.7.0: a worker that reads it cannot store its own, and never settles the message. Not reported
        upstream.
        """
        try:
            meta = super().decode_result(payload)
        except Exception as error:  # noqa: BLE001 - each tagged type of kombu's JSON raises its own errors
            logger.warning("a stored result cannot be read and is ignored: %s", type(error).__name__)
            meta = None
        is_result = isinstance(meta, dict) and isinstance(meta.get("status"), str) and "result" in meta
        return meta if is_result else {"status": states.PENDING, "result": None}

    def new_connection(self) -> RedisConnection:
        """Return a connection that is not connected yet, made like those of the backend's own client."""
        pool = self.client.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state != states.SUCCESS or request is None or _is_redelivered(request):
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        return result

    def _set(self, key: bytes, value: str | bytes, expires: int | None = None) -> None:
        connection = self.connections.acquire()
        try:
            exchange(connection, connection.pack_commands(self._commands(key, value, expires)), replies=2)
        except ResponseError:
            self.connections.give_back(connection)
            raise
        self.connections.give_back(connection)

    def _commands(self, key: str | bytes, value: str | bytes, expires: int | None = None) -> list[tuple[Any, ...]]:
        """Return the commands that store and publish a result."""
        expires = self.expires if expires is None else expires
        store = ("SETEX", key, expires, value) if expires else ("SET", key, value)
        return [store, ("PUBLISH", key, value)]


def _is_redelivered(request: Any) -> bool:
    return bool((request.delivery_info or {}).get("redelivered"))
