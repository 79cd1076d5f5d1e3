"""Celery's remote control of our workers: a malformed message or command is one log line, without what it holds."""

from __future__ import annotations

from typing import Any

from celery.app.control import Control, Mailbox
from celery.utils.log import get_logger
from kombu import Queue
from kombu.pidbox import Node
from kombu.utils.uuid import uuid

logger = get_logger(__name__)


class RobustNode(Node):
    """A worker's end of the control channel.

    Celery and kombu log the traceback of whatever a message makes them raise, with parts of the message.
    """

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Run the command of a message, if that is possible."""
        try:
            return super().handle_message(body, message)
        except Exception as error:  # noqa: BLE001 - kombu trusts messages, so it raises anything
            logger.error("a remote-control message is refused: %s", type(error).__name__)  # noqa: TRY400
            return None

    def handle(self, method: Any, arguments: Any = None) -> Any:
        """Run a command, and return its answer."""
        try:
            return super().handle(method, arguments)
        except Exception as error:  # noqa: BLE001 - a wrong argument can fail anywhere in a command
            name = method if isinstance(method, str) and method in self.handlers else "(unknown)"
            logger.error("the remote-control command %s fails: %s", name, type(error).__name__)  # noqa: TRY400
            return {"error": repr(error)}

    def on_decode_error(self, _message: Any, exc: Exception) -> None:
        """Drop a message that cannot be decoded. Only green pools call this; the others call the consumer's."""
        logger.error("a remote-control message cannot be decoded: %s", type(exc).__name__)


class RobustMailbox(Mailbox):
    """The mailbox whose messages our node handles.

    Attributes:
        has_unique_queues: True if each connection's queue has its own name.
    """

    node_cls = RobustNode
    has_unique_queues = False

    def get_queue(self, hostname: str) -> Queue:
        """Return the queue of a worker's commands.

        Fault in kombu 5.7.0: the name is that of the worker alone. If the network loses the connection silently, the
        worker connects again before RabbitMQ notices, and RabbitMQ refuses the name that the old connection still
        holds. Such an error ends the worker. Not reported upstream.
        """
        return super().get_queue(f"{hostname}.{uuid()}" if self.has_unique_queues else hostname)


class RobustControl(Control):
    """Celery's control commands with our mailbox."""

    Mailbox = RobustMailbox

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        # Redis holds no name for a connection, and would keep each name that a worker ever used.
        self.mailbox.has_unique_queues = app.conf.broker_url.startswith("amqp")
