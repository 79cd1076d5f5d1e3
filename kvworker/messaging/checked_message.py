"""A message class that checks a message before kombu decodes its body."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import ContentDisallowed
from kombu.message import Message

from kvworker.messaging.envelope import problem_of_content


class RefusedContentError(ContentDisallowed):
    """A message's body may not be decoded. The text says why, and does not quote the message."""


class CheckedMessage(Message):
    """The base of our transports' message classes, after kombu's own: a message with a problem is never decoded.

    kombu decompresses a body when it makes the message: before anything can refuse it, and however large it becomes.
    This class records the problem instead, as an error for which a consumer refuses the message.
    """

    def __init__(self, *, body: Any, max_bytes: int | None = None, problem: str | None = None, **parts: Any) -> None:
        problem = problem or problem_of_content(parts.get("headers") or {}, parts.get("content_encoding"))
        if max_bytes is not None and len(body or "") > max_bytes:
            problem = f"it has {len(body)} bytes, more than queue.max_message_bytes"
        if problem is not None:
            refusal = RefusedContentError(problem)
            self.errors = [(type(refusal), refusal, None)]
        super().__init__(body, **parts)
