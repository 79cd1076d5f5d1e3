"""Tells apart why a server of the queue serves no connection: it is away, it refuses the login, or it refuses more."""

from __future__ import annotations

from ssl import SSLCertVerificationError

from amqp.exceptions import AccessRefused, ChannelError, MessageNacked, NotAllowed
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError


class UnknownPrimaryError(RedisConnectionError):
    """The Sentinels answer, and know no primary of the name that the URL gives."""


def refused_login(error: BaseException) -> bool:
    """Return whether the server refused user, password or rights. Until an operator changes one, it always will."""
    return isinstance(error, AuthenticationError | NoPermissionError | AccessRefused | NotAllowed)


def has_answered(error: BaseException | None, already_handled: BaseException | None = None) -> bool:
    """Return whether a server answered, and refused something other than the login. To start one would not help.

    Args:
        error: The error of an attempt.
        already_handled: The exception that the thread was handling before the attempt. Python makes it the last
            context of every error, so the search ends there.
    """
    while error is not None and error is not already_handled:
        if isinstance(
            error, ResponseError | UnknownPrimaryError | ChannelError | MessageNacked | SSLCertVerificationError
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
