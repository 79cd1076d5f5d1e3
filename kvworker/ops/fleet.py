"""Asks every worker on the broker whether it can serve, over Celery's remote control. Counts those that are silent."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from celery import Celery

from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import STATS_KEY
from kvworker.settings import Settings, redacted_url
from kvworker.settings.urls import speaks_redis

#: The time to collect answers, because the number of workers is not known.
_COLLECT_SECONDS: Final = 2.0
#: The wait for workers that did not answer the first time. On a busy machine they can be that slow.
_SECOND_COLLECT_SECONDS: Final = 5.0
#: The longest version or pool that a worker's answer may name.
_MAX_TEXT: Final = 100
#: Celery's names of pools, by the last part of their modules, where both differ.
_POOL_NAMES: Final[Mapping[str, str]] = {"thread": "threads"}

#: The answers of the workers by their names. Several workers may have the same name.
_Stats: TypeAlias = Mapping[str, list[Any]]


@dataclass(frozen=True)
class WorkerAnswer:
    """A worker's answer. Anyone who reaches the broker may have written it.

    Attributes:
        name: Its name.
        problem: Why it consumes nothing; "" if it can serve.
        version: Its version of kvworker; "" for a worker of 0.1, which does not tell.
        pool: Celery's name of its pool.
        concurrency: The number of operations that it runs at a time.
        uptime_seconds: The time since it started.
        active: The number of operations that it runs now; None if it does not tell.
        state: All that it said about itself as a worker of this store.
    """

    name: str
    problem: str
    version: str = ""
    pool: str = ""
    concurrency: int = 0
    uptime_seconds: float = 0.0
    active: int | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, stats: Any) -> WorkerAnswer:
        """Make it from the answer to ``stats``, whose parts may be missing or of any type."""
        state, pool = _mapping(stats, STATS_KEY), _mapping(stats, "pool")
        module = str(pool.get("implementation", "")).partition(":")[0].rpartition(".")[2]
        return cls(
            name,
            _shown_problem(redacted_url(str(state.get("problem", "")))),
            version=str(state.get("version", ""))[:_MAX_TEXT],
            pool=_POOL_NAMES.get(module, module)[:_MAX_TEXT],
            concurrency=int(_number(pool.get("max-concurrency"))),
            uptime_seconds=_number(stats.get("uptime") if isinstance(stats, dict) else None),
            active=int(_number(state["active"])) if "active" in state else None,
            state=state,
        )


@dataclass(frozen=True)
class Fleet:
    """The known workers.

    Attributes:
        answers: The answers of those that serve this store's queue, in order of their names.
        silent_count: The workers that are connected to the broker and do not answer. On Redis this includes another
            program's workers.
        silent_names: Names that these may have. Those of workers that were killed may be among them.
        shared_names: Names that several workers have, at least one of which serves this store's queue.
    """

    answers: tuple[WorkerAnswer, ...] = ()
    silent_count: int = 0
    silent_names: tuple[str, ...] = ()
    shared_names: tuple[str, ...] = ()


def ask_workers(settings: Settings, *, is_patient: bool = True) -> Fleet:
    """Ask the workers that serve this store's queue, and find out whether some are connected but do not answer.

    Args:
        settings: The settings of the store.
        is_patient: Ask once more, and wait for longer, if some are silent.

    Workers of an older release, and those of other stores and programs on the same broker, are not in the answers.

    Returns:
        Their answers; nothing if ``queue.remote_control`` is off. Where messages are signed with certificates,
        silent workers are not counted on Redis: other programs' workers there do not answer either.
    """
    if not settings.queue.remote_control:
        return Fleet()
    app = make_celery(settings)
    counts_listeners = speaks_redis(settings.queue.broker_url) and not settings.policies.has_certificates
    stats = _ask(app, _COLLECT_SECONDS, _listeners(app)[0] if counts_listeners else None)
    fleet = _fleet(app, settings, stats)
    if not fleet.silent_count or not is_patient:
        return fleet
    again = _ask(app, _SECOND_COLLECT_SECONDS)
    return _fleet(app, settings, {name: max(stats[name], again[name], key=len) for name in {*stats, *again}})


def outdated_text(problem: str) -> str:
    """Return what a worker says that is too old for the schema, or "" for any other problem.

    Its advice is left out: 0.1 says to migrate, which has been done.
    """
    found = re.match(r"(?s).*schema is of version (\d{4}), and this program works with (\d{4})", problem)
    return found[0] if found and found[1] > found[2] else ""


def _shown_problem(problem: str) -> str:
    outdated = outdated_text(problem)
    return f"{outdated}; replace this worker" if outdated else problem


def _ask(app: Celery, seconds: float, most: int | None = None) -> defaultdict[str, list[Any]]:
    """Collect answers for so many seconds, or until there are as many as there can be."""
    stats = defaultdict[str, list[Any]](list)
    if most == 0:
        return stats
    # A connection of the process's pool may be one that the broker has closed.
    with app.connection_for_write() as connection:
        # Celery's `inspect` keeps one answer for each name.
        for reply in (
            app.control.broadcast("stats", reply=True, timeout=seconds, limit=most, connection=connection) or ()
        ):
            for name, answer in reply.items() if isinstance(reply, dict) else ():
                stats[name].append(answer)
    return stats


def _fleet(app: Celery, settings: Settings, stats: _Stats) -> Fleet:
    queue = settings.queue.queue_name
    ours = [
        answer
        for name, answers in sorted(stats.items())
        for answer in (WorkerAnswer.of(name, stats) for stats in answers)
        if answer.state.get("queue") == queue
    ]
    answers = tuple(ours)
    shared = tuple(dict.fromkeys(answer.name for answer in ours if len(stats[answer.name]) > 1))
    if not speaks_redis(settings.queue.broker_url):
        # Each worker of a release before the next one consumes it, as far as is known.
        consuming = [each for each in ours if not each.problem and queue in each.state.get("queues", [queue])]
        return Fleet(answers, max(0, _consumers(app, queue) - len(consuming)), shared_names=shared)
    if settings.policies.has_certificates:
        return Fleet(answers, shared_names=shared)
    return Fleet(answers, *_silent_on_redis(app, stats), shared)


def _silent_on_redis(app: Celery, stats: _Stats) -> tuple[int, tuple[str, ...]]:
    """Return how many workers are silent, and the names that they may have."""
    listeners, names = _listeners(app)
    count = max(0, listeners - sum(map(len, stats.values())))
    return count, tuple(sorted(names.difference(stats))) if count else ()


def _mapping(answer: Any, name: str) -> Mapping[str, Any]:
    part = answer.get(name) if isinstance(answer, dict) else None
    return part if isinstance(part, dict) else {}


def _number(value: Any) -> float:
    """Return a number from an answer; 0 for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return float(value) if is_number else 0.0


def _consumers(app: Celery, queue: str) -> int:
    """Return how many consumers RabbitMQ has for a queue."""
    with app.connection_for_write(heartbeat=0) as connection:
        try:
            count: int = connection.default_channel.queue_declare(queue, passive=True).consumer_count
        except connection.channel_errors:
            return 0  # The queue does not exist.
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
