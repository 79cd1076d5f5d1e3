"""Operations as Celery signatures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from celery.canvas import Signature

from kvworker.client.base import KeyValueOperations
from kvworker.client.host_application import application_for
from kvworker.client.timeouts import check_timeout
from kvworker.messaging.message_size import check_message_size
from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.wire import described, encode_request
from kvworker.tools import check_arguments, find_tool
from kvworker.tools.policy import Policy


def make_signature(
    store: KeyValueOperations, app: Any, tool_name: str, arguments: Mapping[str, Any], valid_seconds: float | None
) -> Signature:
    """Return the Celery signature of an operation on the store's queue, as ``KeyValueOperations.signature`` says.

    Args:
        store: Gives the settings and the persona.
        app: kvworker's Celery application. The host program's own one sends the message if it uses the same servers.
        tool_name: A tool's name (``kv_get`` …).
        arguments: The tool's arguments, not checked yet.
        valid_seconds: Seconds from now until the message's deadline. None means that it has none.

    Raises:
        InvalidRequestError: The arguments are wrong.
        PolicyDeniedError: The store's persona may not call this.
        ConfigurationError: ``task_always_eager`` is set in Celery's current application.
    """
    settings = store.settings
    tool = find_tool(tool_name)
    checked = check_arguments(tool, arguments, missing_allowed=("value",))
    policy = Policy(settings.policies)
    deadline = None if valid_seconds is None else time.time() + check_timeout(valid_seconds, 0.0)
    payload = encode_request(checked, deadline=deadline, persona=policy.admit(store.persona, tool, checked))
    check_message_size(checked, payload, settings.queue.max_message_bytes)
    return application_for(app).signature(
        tool.task_name,
        kwargs=MessageSigner(settings.policies).sign(tool, payload),
        immutable=not (tool.name == "kv_set" and "value" not in checked),
        queue=settings.queue.queue_name,
        serializer=app.conf.task_serializer,
        kwargsrepr=described(tool, checked),
    )
