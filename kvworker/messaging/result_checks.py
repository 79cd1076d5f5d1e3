"""Checks that the results' server lets a worker do everything that storing a result needs.

Without these rights, a worker would apply operations and leave their callers without an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, ResponseError

from kvworker.messaging.redis_connections import RedisConnection, connect
from kvworker.messaging.wire import REDELIVERY_COUNTS

#: The end of the checked keys. No message of ours has this id.
_CHECKED: Final = "kvworker.check"
#: The lifetime of the checked keys.
_KEPT_SECONDS: Final = 1

_RIGHTS_ADVICE: Final = "grant it to the user of queue.result_backend (docs/how-to/secure.md names all rights)"
_REPLICA_ADVICE: Final = "it is a replica: name the primary in queue.result_backend"
_MEMORY_ADVICE: Final = "raise its maxmemory, or let it evict keys that expire (maxmemory-policy volatile-ttl)"
_LOGIN_ADVICE: Final = "correct user or password in queue.result_backend, or the user's rights on the server"
_OTHER_ADVICE: Final = "see the log of that server"


@dataclass(frozen=True)
class Refusal:
    """A refusal of the results' server.

    Attributes:
        reason: The refused commands, with the server's words.
        advice: The remedy.
        lasts: True if it lasts until somebody changes something.
        is_full: True if the reason is that the server's memory is full.
    """

    reason: str
    advice: str
    lasts: bool = False
    is_full: bool = False


def refusal_by_results(backend: Any) -> Refusal | None:
    """Log in to the results' server, and try each command that storing a result needs on keys that expire soon.

    Args:
        backend: A ``ResultBackend``.

    Returns:
        The server's refusal, or None.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached.
        OSError: The same.
    """
    connection = backend.new_connection()
    try:
        connect(connection)
        return _refused_commands(connection, _commands(backend))
    except AuthenticationError as error:
        return Refusal(f"the results' server refuses the login ({error})", _LOGIN_ADVICE, lasts=True)
    finally:
        connection.disconnect()


def _commands(backend: Any) -> list[tuple[Any, ...]]:
    key, count = backend.get_key_for_task(_CHECKED), REDELIVERY_COUNTS + _CHECKED
    store = ("SETEX", key, _KEPT_SECONDS, "") if backend.expires else ("SET", key, "", "EX", _KEPT_SECONDS)
    return [
        ("TIME",),
        ("GET", key),
        ("MGET", key),
        store,
        ("PUBLISH", key, ""),
        ("INCR", count),
        ("EXPIRE", count, _KEPT_SECONDS),
    ]


def _refused_commands(connection: RedisConnection, commands: list[tuple[Any, ...]]) -> Refusal | None:
    refused: dict[str, ResponseError] = {}
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    for name, *_ in commands:
        try:
            connection.read_response()
        except ResponseError as refusal:
            refused[name] = refusal
    if not refused:
        return None
    error = next(iter(refused.values()))
    reason = f"the results' server refuses {', '.join(refused)} ({error})"
    if isinstance(error, NoPermissionError):
        return Refusal(reason, _RIGHTS_ADVICE, lasts=True)
    if isinstance(error, ReadOnlyError):
        return Refusal(reason, _REPLICA_ADVICE)
    # redis-py 5.3 has no type for it.
    is_full = "maxmemory" in str(error)
    return Refusal(reason, _MEMORY_ADVICE if is_full else _OTHER_ADVICE, is_full=is_full)
