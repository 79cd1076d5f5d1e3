"""Asks every worker on the broker whether it can serve, over Celery's remote control. Counts those that are silent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from celery import Celery

from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import STATS_KEY
from kvworker.settings import Settings
from kvworker.settings.urls import speaks_redis

#: How long to collect answers: the number of workers is not known.
_COLLECT_SECONDS: Final = 2.0
#: How long to wait for those that did not answer the first time. A worker on a busy machine can be that slow.
_SECOND_COLLECT_SECONDS: Final = 5.0

#: The answers of the workers by their names. Several workers may have the same name.
_Stats: TypeAlias = Mapping[str, list[Any]]


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
        shared_names: Names that several workers have, at least one of which serves this store's queue.
    """

    answers: tuple[WorkerAnswer, ...] = ()
    silent_count: int = 0
    silent_names: tuple[str, ...] = ()
    shared_names: tuple[str, ...] = ()


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
    if not fleet.silent_count:
        return fleet
    again = _ask(app, _SECOND_COLLECT_SECONDS)
    return _fleet(app, settings, {name: max(stats[name], again[name], key=len) for name in {*stats, *again}})


def _ask(app: Celery, seconds: float) -> defaultdict[str, list[Any]]:
    stats = defaultdict[str, list[Any]](list)
    # A connection of the process's pool may be one that the broker has closed.
    with app.connection_for_write() as connection:
        # Celery's `inspect` keeps one answer for each name.
        for reply in app.control.broadcast("stats", reply=True, timeout=seconds, connection=connection) or ():
            for name, answer in reply.items() if isinstance(reply, dict) else ():
                stats[name].append(answer)
    return stats


def _fleet(app: Celery, settings: Settings, stats: _Stats) -> Fleet:
    queue = settings.queue.queue_name
    ours = [
        (name, state)
        for name, answers in sorted(stats.items())
        for state in map(_state, answers)
        if state.get("queue") == queue
    ]
    answers = tuple(WorkerAnswer(name, str(state.get("problem", ""))) for name, state in ours)
    shared = tuple(dict.fromkeys(name for name, _ in ours if len(stats[name]) > 1))
    if not speaks_redis(settings.queue.broker_url):
        # Each worker of a release before the next one consumes it, as far as is known.
        consuming = [state for _, state in ours if not state.get("problem") and queue in state.get("queues", [queue])]
        return Fleet(answers, max(0, _consumers(app, queue) - len(consuming)), shared_names=shared)
    if settings.policies.has_certificates:
        return Fleet(answers, shared_names=shared)
    return Fleet(answers, *_silent_on_redis(app, stats), shared)


def _silent_on_redis(app: Celery, stats: _Stats) -> tuple[int, tuple[str, ...]]:
    """Return how many workers are silent, and the names that they may have."""
    listeners, names = _listeners(app)
    count = max(0, listeners - sum(map(len, stats.values())))
    return count, tuple(sorted(names.difference(stats))) if count else ()


def _state(answer: Any) -> Mapping[str, Any]:
    state = answer.get(STATS_KEY) if isinstance(answer, dict) else None
    return state if isinstance(state, dict) else {}


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
