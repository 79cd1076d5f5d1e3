"""The blocks that are kvworker's own, and the rules that hold between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from kvworker.model import MAX_BATCH_ROWS
from kvworker.settings.base import Block
from kvworker.settings.urls import BROKER_SCHEMES, REDIS_SCHEMES, queue_url, server_of, speaks_redis

#: Long enough for a caller to call again after an unknown outcome.
_GENERATED_ID_RETENTION_SECONDS = 3600

# Ten years. A longer time is a mistake, and a shorter one can always be added to today's date.
_MAX_SECONDS = 315_360_000

#: Twice what a full pipeline takes, of text that JSON escapes.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

_Seconds = Annotated[float, Field(gt=0, le=_MAX_SECONDS, allow_inf_nan=False)]
_WholeSeconds = Annotated[int, Field(ge=1, le=_MAX_SECONDS)]
_Rows = Annotated[int, Field(ge=1, le=MAX_BATCH_ROWS)]
# Every broker accepts such a name, and it fits into a comma-separated list of queues.
_QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]
# The names that RabbitMQ documents, and plugins' own.
_ArgumentName = Annotated[str, Field(pattern=r"^x-[a-z0-9-]+$")]


class ConversationStoreSettings(Block):
    """The host program's conversation store, whose database the key-value store may share."""

    url: SecretStr | None = Field(
        default=None,
        description="URL of the host program's database, for adapters that reuse it. A host may hand over its engine"
        " at run time instead.",
    )


class QueueSettings(Block):
    """The broker, the result backend and the delivery of messages."""

    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="redis://, rediss:// (TLS), redis+socket://path (a relative path starts at the working directory),"
        " sentinel://host:26379,host:26379/0?master_name=NAME, amqp://, amqps:// or pyamqp://. valkey:// and valkeys://"
        " mean redis:// and rediss://.",
    )
    result_backend: str = Field(
        default="",
        validate_default=True,
        description="URL of the Redis that keeps results. Default: the broker's. Required with a RabbitMQ broker.",
    )
    queue_name: _QueueName = Field(default="kv", description="Queue of the operations.")
    maintenance_queue_name: _QueueName = Field(
        default="kv.maintenance", description="Queue of the periodic tasks. It must differ from queue_name."
    )
    arguments: dict[_ArgumentName, str | int | float | bool] = Field(
        default={},
        description="Arguments with which both queues are declared, for RabbitMQ only, such as x-queue-type: quorum."
        " A queue that exists must have the same ones.",
    )
    visibility_timeout_seconds: int = Field(
        default=60,
        ge=5,
        le=_MAX_SECONDS,
        description="Seconds after which Redis delivers the message of a lost worker again.",
    )
    max_redeliveries: int = Field(
        default=5, ge=1, le=1000, description="Number of times that a message is delivered again before it is given up."
    )
    result_expires_seconds: _WholeSeconds = Field(
        default=3600, description="Seconds for which an unread result is kept. At least facade.timeout_seconds."
    )
    soft_shutdown_seconds: _Seconds = Field(
        default=10.0, description="Seconds that a stopping worker waits for its running tasks."
    )
    retry_seconds: _Seconds = Field(
        default=15.0,
        description="Seconds for which a worker retries transient database errors, never past the message's deadline."
        " Below visibility_timeout_seconds.",
    )
    connect_timeout_seconds: _Seconds = Field(
        default=2.0, description="Time limit in seconds for one attempt to connect to the broker, or to read from it."
    )
    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES,
        ge=64 * 1024,
        le=512 * 1024 * 1024,
        description="Size in bytes of the largest message, as the broker holds it. A caller refuses to send a larger"
        " one, and a worker drops it without decoding it. Give callers and workers the same.",
    )
    remote_control: bool = Field(
        default=True,
        description="Let anyone who reaches the broker query and control workers (`celery inspect`, `celery control`).",
    )

    @property
    def shares_server(self) -> bool:
        """Whether queue and results are on one server, whatever their database numbers and users are."""
        return server_of(self.broker_url) == server_of(self.result_backend)

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, url: str) -> str:
        return queue_url(url, BROKER_SCHEMES)

    @field_validator("result_backend")
    @classmethod
    def _check_result_backend(cls, url: str, info: ValidationInfo) -> str:
        broker_url = info.data.get("broker_url")
        if url or broker_url is None:
            return queue_url(url, REDIS_SCHEMES) if url else url
        if not speaks_redis(broker_url):
            raise ValueError("it is required with this broker; set it to the redis:// URL where results are kept")
        return str(broker_url)


class FacadeSettings(Block):
    """The caller's side."""

    timeout_seconds: _Seconds = Field(
        default=5.0,
        description="Time limit in seconds for sending one call and waiting for its result. At most half of"
        " maintenance.operation_retention_seconds.",
    )
    sender_threads: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Threads in each process that connect to the broker and send. Each keeps a connection.",
    )
    max_calls_in_flight: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Calls of one process that are sent and not answered yet. Further calls wait for their turn within"
        " their timeout; then they raise OperationNotSentError.",
    )
    coalesce_calls: bool = Field(
        default=True,
        description="Let concurrent calls of a process's threads or coroutines share a message. If false, monitors show"
        " each call as a separate task, at half the call rate or less.",
    )


class MaintenanceSettings(Block):
    """The periodic tasks. Each budget is at most its interval and below ``queue.visibility_timeout_seconds``."""

    sweep_interval_seconds: _Seconds = Field(
        default=60.0,
        description="Seconds between sweeps, which delete expired entries. An expired entry is invisible even before.",
    )
    sweep_batch_rows: _Rows = Field(default=200, description="Rows that a sweep deletes in one transaction.")
    sweep_budget_seconds: _Seconds = Field(default=20.0, description="Seconds that one sweep may run.")
    recompute_interval_seconds: _Seconds = Field(
        default=3600.0, description="Seconds between recomputes, which check the ledgers against the entries."
    )
    recompute_budget_seconds: _Seconds = Field(default=20.0, description="Seconds that one recompute may run.")
    prune_interval_seconds: _Seconds = Field(
        default=300.0, description="Seconds between prunes, which delete operation records past their retention."
    )
    prune_batch_rows: _Rows = Field(default=1000, description="Rows that a prune deletes in one transaction.")
    prune_budget_seconds: _Seconds = Field(default=20.0, description="Seconds that one prune may run.")
    operation_retention_seconds: _WholeSeconds = Field(
        default=86_400,
        description="Seconds for which an operation id is remembered, so that its write is applied only once. At least"
        " twice queue.visibility_timeout_seconds x (queue.max_redeliveries + 1).",
    )
    generated_id_retention_seconds: _WholeSeconds | None = Field(
        default=None,
        description="The same for an operation id that no caller chose, if the call has a timeout. At least twice as"
        " long as messages are delivered again or calls take, and as long as results are kept. Default: an hour, or"
        " longer where these rules demand it.",
    )


def rule_problems(
    queue: QueueSettings | None, facade: FacadeSettings | None, maintenance: MaintenanceSettings | None
) -> Iterator[str]:
    """Yield one line for each broken rule within or between these blocks. Pass None for a block that is invalid."""
    if queue:
        yield from _queue_problems(queue)
    if queue and facade:
        yield from _facade_problems(facade, queue)
    if maintenance:
        yield from _budget_problems(maintenance, queue)
        for name in ("operation_retention_seconds", "generated_id_retention_seconds"):
            retention_seconds = getattr(maintenance, name)
            if retention_seconds is not None:
                yield from _retention_problems(name, retention_seconds, queue, facade)
        yield from _generated_id_problems(maintenance, queue)


def generated_id_retention(queue: QueueSettings, facade: FacadeSettings, maintenance: MaintenanceSettings) -> int:
    """Return for how many seconds an operation id is remembered that no caller chose."""
    if maintenance.generated_id_retention_seconds is not None:
        return maintenance.generated_id_retention_seconds
    needed = max(
        _GENERATED_ID_RETENTION_SECONDS,
        _message_lifetime(queue) * 2,
        math.ceil(facade.timeout_seconds * 2),
        queue.result_expires_seconds,
    )
    return min(needed, maintenance.operation_retention_seconds)


def _queue_problems(queue: QueueSettings) -> Iterator[str]:
    """Yield one line for each contradiction within the queue block."""
    if queue.queue_name == queue.maintenance_queue_name:
        yield (
            "queue.maintenance_queue_name: it should differ from queue.queue_name, so that a long sweep"
            f" never delays a call; both are {queue.queue_name!r}"
        )
    if queue.arguments and speaks_redis(queue.broker_url):
        yield "queue.arguments: only RabbitMQ's queues have arguments; remove it, or set queue.broker_url to amqp://…"
    if queue.retry_seconds >= queue.visibility_timeout_seconds:
        yield _too_long("queue.retry_seconds", queue.retry_seconds, queue.visibility_timeout_seconds)


def _facade_problems(facade: FacadeSettings, queue: QueueSettings) -> Iterator[str]:
    """Yield a line if a result could expire while its caller still waits."""
    if queue.result_expires_seconds < facade.timeout_seconds:
        yield (
            f"queue.result_expires_seconds: it should be at least facade.timeout_seconds"
            f" ({facade.timeout_seconds:g}), not {queue.result_expires_seconds}"
        )


def _budget_problems(maintenance: MaintenanceSettings, queue: QueueSettings | None) -> Iterator[str]:
    """Yield a line for each task that could still be running when it is next sent or redelivered."""
    for task, budget_seconds, interval_seconds in (
        ("sweep", maintenance.sweep_budget_seconds, maintenance.sweep_interval_seconds),
        ("recompute", maintenance.recompute_budget_seconds, maintenance.recompute_interval_seconds),
        ("prune", maintenance.prune_budget_seconds, maintenance.prune_interval_seconds),
    ):
        path = f"maintenance.{task}_budget_seconds"
        if budget_seconds > interval_seconds:
            yield (
                f"{path}: it should be at most maintenance.{task}_interval_seconds"
                f" ({interval_seconds:g}), not {budget_seconds:g}"
            )
        if queue and budget_seconds >= queue.visibility_timeout_seconds:
            yield _too_long(path, budget_seconds, queue.visibility_timeout_seconds)


def _message_lifetime(queue: QueueSettings) -> int:
    return queue.visibility_timeout_seconds * (queue.max_redeliveries + 1)


def _retention_problems(
    name: str, retention_seconds: int, queue: QueueSettings | None, facade: FacadeSettings | None
) -> Iterator[str]:
    """Yield a line if a message could outlive the record that keeps it from being applied twice."""
    if queue:
        lifetime_seconds = _message_lifetime(queue)
        if lifetime_seconds * 2 > retention_seconds:
            yield (
                f"maintenance.{name}: it should be at least"
                f" {lifetime_seconds * 2}, not {retention_seconds}: twice queue.visibility_timeout_seconds"
                f" ({queue.visibility_timeout_seconds}) x (queue.max_redeliveries ({queue.max_redeliveries}) + 1);"
                " a message must not be delivered again after the record of its write is gone"
            )
    if facade and facade.timeout_seconds * 2 > retention_seconds:
        yield (
            f"facade.timeout_seconds: it should be at most half of maintenance.{name}"
            f" ({retention_seconds}), not {facade.timeout_seconds:g}"
        )


def _generated_id_problems(maintenance: MaintenanceSettings, queue: QueueSettings | None) -> Iterator[str]:
    """Yield a line if a caller could get an unknown outcome whose operation id is forgotten, or a shorter one."""
    retention_seconds = maintenance.generated_id_retention_seconds
    if retention_seconds is None:
        return
    if retention_seconds > maintenance.operation_retention_seconds:
        yield (
            "maintenance.generated_id_retention_seconds: it should be at most maintenance.operation_retention_seconds"
            f" ({maintenance.operation_retention_seconds}), not {retention_seconds}"
        )
    if queue and queue.result_expires_seconds > retention_seconds:
        yield (
            "maintenance.generated_id_retention_seconds: it should be at least queue.result_expires_seconds"
            f" ({queue.result_expires_seconds}), not {retention_seconds}; a caller may learn that late that it must"
            " call again"
        )


def _too_long(path: str, seconds: float, visibility_timeout_seconds: int) -> str:
    return (
        f"{path}: it should be below queue.visibility_timeout_seconds ({visibility_timeout_seconds}),"
        f" not {seconds:g}; a message that takes longer is delivered to a second worker"
    )
