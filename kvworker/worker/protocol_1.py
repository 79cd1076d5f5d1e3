"""Celery's task protocol 1, which clients with ``task_protocol = 1`` send: everything is in the body.

Such a message becomes one of protocol 2 before anything else looks at it, so that every check applies to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.json import dumps

_HEADERS: Final = (
    *("task", "id", "root_id", "parent_id", "group", "group_index"),
    *("retries", "eta", "expires", "timelimit"),
)
_OPTIONS: Final = ("callbacks", "errbacks", "chord")


def use_protocol_2(message: Any, body: Mapping[str, Any]) -> None:
    """Change a message of protocol 1 into one of protocol 2.

    Args:
        message: The ``kombu.Message``.
        body: Its decoded body.
    """
    message.headers = {name: body[name] for name in _HEADERS if name in body}
    options = {name: body[name] for name in _OPTIONS if name in body}
    message.body = dumps([body.get("args") or [], body.get("kwargs") or {}, options]).encode()
    message._decoded_cache = None
