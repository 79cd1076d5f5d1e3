"""Asks every worker on the broker whether it can serve, over Celery's remote control. Counts those that are silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import STATS_KEY
from kvworker.settings import Settings
from kvworker.settings.urls import speaks_redis

#: How long to collect answers: the number of workers is not known.
_COLLECT_SECONDS: Final = 2.0
#: How long to wait for those that did not answer the first time. A worker on a busy machine can be that slow.
_SECOND_COLLECT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class WorkerAnswer:
    """A worker's answer: its name, and why it consumes nothing; "" if it can serve."""

    name: str
    problem: str


@dataclass(frozen=True)
class Fleet:
    """What is known about the workers.

    Attributes:
        answers: The answers of those that serve this store's queue, in order of their names.
        silent_count: How many are connected to the broker and do not answer. On Redis another program's count too.
        silent_names: Names that these may have. Those of workers that were killed may be among them.
    """

    answers: tuple[WorkerAnswer, ...] = ()
    silent_count: int = 0
    silent_names: tuple[str, ...] = ()


def ask_workers(settings: Settings) -> Fleet:
    """Ask the workers that serve this store's queue, and find out whether some are connected but do not answer.

    Workers of an older release, and those of other stores and programs on the same broker, are not in the answers.

    Returns:
        Their answers; nothing if ``queue.remote_control`` is off. Where messages are signed with certificates,
        silent workers are not counted on Redis: other programs' workers there do not answer either.
    """
    if not settings.queue.remote_control:
        return Fleet()
    app = make_celery(settings)
    stats = _ask(app, _COLLECT_SECONDS)
    fleet = _fleet(app, settings, stats)
    return _fleet(app, settings, stats | _ask(app, _SECOND_COLLECT_SECONDS)) if fleet.silent_count else fleet


def _ask(app: Celery, seconds: float) -> dict[str, Any]:
    # A connection of the process's pool may be one that the broker has closed.
    with app.connection_for_write() as connection:
        return app.control.inspect(timeout=seconds, connection=connection).stats() or {}


def _fleet(app: Celery, settings: Settings, stats: Mapping[str, Any]) -> Fleet:
    queue = settings.queue.queue_name
    states = {name: answer.get(STATS_KEY) for name, answer in sorted(stats.items()) if isinstance(answer, dict)}
    ours = {name: state for name, state in states.items() if isinstance(state, dict) and state.get("queue") == queue}
    answers = tuple(WorkerAnswer(name, str(state.get("problem", ""))) for name, state in ours.items())
    if not speaks_redis(settings.queue.broker_url):
        # Each worker of a release before the next one consumes it, as far as is known.
        consuming = [
            state for state in ours.values() if not state.get("problem") and queue in state.get("queues", [queue])
        ]
        return Fleet(answers, max(0, _consumers(app, queue) - len(consuming)))
    if settings.policies.has_certificates:
        return Fleet(answers)
    listeners, names = _listeners(app)
    silent_count = max(0, listeners - len(stats))
    return Fleet(answers, silent_count, tuple(sorted(names - set(stats))) if silent_count else ())


def _consumers(app: Celery, queue: str) -> int:
    """Return how many consumers RabbitMQ has for a queue."""
    with app.connection_for_write(heartbeat=0) as connection:
        try:
            count: int = connection.default_channel.queue_declare(queue, passive=True).consumer_count
        except connection.channel_errors:
            return 0  # There is no such queue.
        return count


def _listeners(app: Celery) -> tuple[int, set[str]]:
    """Return how many connections listen for remote control on Redis, and the names of all workers that ever did."""
    exchange = app.control.mailbox.exchange.name
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        # kombu ignores an empty message.
        count: int = channel.client.publish(f"{channel.keyprefix_fanout}{exchange}", b"")
        mailboxes = [queue for *_, queue in channel.get_table(exchange)] if count else []
    return count, {mailbox.removesuffix(f".{exchange}") for mailbox in mailboxes}
