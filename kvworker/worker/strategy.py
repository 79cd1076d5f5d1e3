"""The strategy of our tasks, Celery's term for how a worker starts a message: malformed ones are refused first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from celery import Celery, Task
from celery.utils.log import get_logger
from celery.worker.strategy import default

from kvworker.errors import InvalidRequestError
from kvworker.messaging.wire import described
from kvworker.model import MAX_KEY_BYTES
from kvworker.tools import TOOLS, Tool
from kvworker.worker.message_checks import problem_of
from kvworker.worker.protocol_1 import use_protocol_2
from kvworker.worker.refused_messages import refuse_message
from kvworker.worker.request import OperationRequest
from kvworker.worker.unacked import acknowledging

strategy = get_logger(default.__module__)

_TOOLS_BY_TASK: Final[Mapping[str, Tool]] = {tool.task_name: tool for tool in TOOLS.values()}
_HIDDEN: Final = "(not shown)"


def refusing_malformed(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Return Celery's default message handler behind a check of the message.

    Args:
        task: The task that the messages are for.
        app: Its application.
        consumer: The worker's consumer.
    """
    # An operation logs one line when it ends. Celery's line about its arrival is for debugging.
    handle = default(task, app, consumer, info=strategy.debug if task.logs_itself else strategy.info)
    acknowledging_here = acknowledging(consumer)
    tool = _TOOLS_BY_TASK.get(task.name)

    def handle_if_sound(message: Any, body: Any, ack: Any, *arguments: Any) -> None:
        """Handle a sound message, and log and refuse any other without its body."""
        if body is not None:
            use_protocol_2(message, body)
        problem = problem_of(message)
        if problem is None:
            _describe(message, tool)
            try:
                handle(message, None, acknowledging_here(message, ack), *arguments)
            except consumer.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - Celery's own handler would log headers and body
                problem = f"Celery cannot take it ({type(error).__name__})"
        if problem is not None:
            refuse_message(consumer, message, problem)

    return handle_if_sound


def _describe(message: Any, tool: Tool | None) -> None:
    """Replace the sender's description of the call, which Celery logs and sends to monitors. It may show the value."""
    headers, (_, keywords, _) = message.headers, message.payload
    headers["argsrepr"] = _HIDDEN
    headers["kwargsrepr"] = _HIDDEN if tool is None else described(tool, _names_in(keywords))
    if headers.get("shadow"):
        headers["shadow"] = None


def _names_in(keywords: Mapping[str, Any]) -> Mapping[str, str]:
    names = {name: keywords.get(name) for name in ("namespace", "key")}
    return {name: text for name, text in names.items() if isinstance(text, str) and len(text) <= MAX_KEY_BYTES}


class CheckedTask(Task):
    """The base class of every task of a worker, Celery's own included: it accepts sound messages only."""

    abstract = True
    Strategy = staticmethod(refusing_malformed)
    Request = f"{OperationRequest.__module__}:{OperationRequest.__name__}"
    #: The sender's fault, so Celery logs it without a traceback.
    throws = (InvalidRequestError,)
    #: True if the task's own code logs how it ended.
    logs_itself = False
