"""The blocks that are kvworker's own, and what must hold between them. Times are in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kvworker.model import MAX_BATCH_ROWS
from kvworker.settings.adapters import drop_omitted
from kvworker.settings.urls import BROKER_SCHEMES, REDIS_SCHEMES, queue_url, redacted_url, speaks_redis

# Ten years: beyond that a number of seconds is a mistake, and sums with today's date still work.
_MAX_SECONDS = 315_360_000

Seconds = Annotated[float, Field(gt=0, le=_MAX_SECONDS, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(ge=1, le=_MAX_SECONDS)]
Rows = Annotated[int, Field(ge=1, le=MAX_BATCH_ROWS)]
# A name that every broker takes and that fits into a comma-separated list of queues.
QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]


class Block(BaseModel):
    """A block of the file: unknown keys and wrong types are refused, blank values count as omitted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _omit_blank(cls, data: object) -> object:
        if isinstance(data, Mapping):
            return drop_omitted({str(key): value for key, value in data.items()})
        return data

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redacted_url(value) if isinstance(value, str) else value


class ConversationStoreSettings(Block):
    """The host program's conversation store, whose database the key-value store may share."""

    url: SecretStr | None = None


class QueueSettings(Block):
    """The broker, the result backend and how messages are treated.

    ``result_backend`` is the broker's URL when that speaks Redis. A message that a lost worker had taken
    is delivered again ``visibility_timeout_seconds`` later, at most ``max_redeliveries`` times.
    ``retry_seconds`` bounds the retries of transient database errors for a message without a deadline.
    ``remote_control`` lets whoever reaches the broker ask workers and stop them (``celery inspect``, ``control``).
    """

    broker_url: str = "redis://127.0.0.1:6379/0"
    result_backend: str = Field(default="", validate_default=True)
    queue_name: QueueName = "kv"
    maintenance_queue_name: QueueName = "kv.maintenance"
    visibility_timeout_seconds: int = Field(default=60, ge=5, le=_MAX_SECONDS)
    max_redeliveries: int = Field(default=5, ge=1, le=1000)
    result_expires_seconds: WholeSeconds = 3600
    soft_shutdown_seconds: Seconds = 10.0
    retry_seconds: Seconds = 15.0
    connect_timeout_seconds: Seconds = 2.0
    remote_control: bool = True

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
    """The caller's side. ``timeout_seconds`` bounds sending and waiting of one call together.

    ``coalesce_calls`` lets calls that many threads of a process make at a time go in one message.
    """

    timeout_seconds: Seconds = 5.0
    sender_threads: int = Field(default=8, ge=1, le=1000)
    coalesce_calls: bool = True


class MaintenanceSettings(Block):
    """The periodic tasks: how often, how many rows in one transaction, how long one run may take.

    ``operation_retention_seconds`` is how long the record of a write is kept: within it the same
    operation id is applied once.
    """

    sweep_interval_seconds: Seconds = 60.0
    sweep_batch_rows: Rows = 200
    sweep_budget_seconds: Seconds = 20.0
    recompute_interval_seconds: Seconds = 3600.0
    recompute_budget_seconds: Seconds = 20.0
    prune_interval_seconds: Seconds = 600.0
    prune_batch_rows: Rows = 1000
    prune_budget_seconds: Seconds = 20.0
    operation_retention_seconds: WholeSeconds = 86_400


def queue_problems(queue: QueueSettings) -> Iterator[str]:
    """What contradicts itself within the queue block, one line each."""
    if queue.queue_name == queue.maintenance_queue_name:
        yield (
            "queue.maintenance_queue_name: it should differ from queue.queue_name, so that a long sweep"
            f" never delays a call; both are {queue.queue_name!r}"
        )
    if queue.retry_seconds >= queue.visibility_timeout_seconds:
        yield _too_long("queue.retry_seconds", queue.retry_seconds, queue.visibility_timeout_seconds)


def maintenance_problems(maintenance: MaintenanceSettings, queue: QueueSettings | None) -> Iterator[str]:
    """Which task could still run when it is sent, or delivered, again; one line each."""
    for task in ("sweep", "recompute", "prune"):
        path = f"maintenance.{task}_budget_seconds"
        budget_seconds = getattr(maintenance, f"{task}_budget_seconds")
        interval_seconds = getattr(maintenance, f"{task}_interval_seconds")
        if budget_seconds > interval_seconds:
            yield (
                f"{path}: it should be at most maintenance.{task}_interval_seconds"
                f" ({interval_seconds:g}), not {budget_seconds:g}"
            )
        if queue and budget_seconds >= queue.visibility_timeout_seconds:
            yield _too_long(path, budget_seconds, queue.visibility_timeout_seconds)


def retention_problems(
    maintenance: MaintenanceSettings, queue: QueueSettings | None, facade: FacadeSettings | None
) -> Iterator[str]:
    """Whether a message could outlive the record that keeps it from being applied twice, one line each."""
    retention_seconds = maintenance.operation_retention_seconds
    if queue:
        lifetime_seconds = queue.visibility_timeout_seconds * (queue.max_redeliveries + 1)
        if lifetime_seconds * 2 > retention_seconds:
            yield (
                "maintenance.operation_retention_seconds: it should be at least"
                f" {lifetime_seconds * 2}, not {retention_seconds}: twice queue.visibility_timeout_seconds"
                f" ({queue.visibility_timeout_seconds}) x (queue.max_redeliveries ({queue.max_redeliveries}) + 1);"
                " a message must not be delivered again after the record of its write is gone"
            )
    if facade and facade.timeout_seconds * 2 > retention_seconds:
        yield (
            "facade.timeout_seconds: it should be at most half of maintenance.operation_retention_seconds"
            f" ({retention_seconds}), not {facade.timeout_seconds:g}"
        )


def cross_problems(
    queue: QueueSettings | None, facade: FacadeSettings | None, maintenance: MaintenanceSettings | None
) -> Iterator[str]:
    """What does not hold between the blocks, one line each; a block that could not be read is left out."""
    if queue:
        yield from queue_problems(queue)
    if maintenance:
        yield from maintenance_problems(maintenance, queue)
        yield from retention_problems(maintenance, queue, facade)
    if queue and facade and queue.result_expires_seconds < facade.timeout_seconds:
        yield (
            f"queue.result_expires_seconds: it should be at least facade.timeout_seconds"
            f" ({facade.timeout_seconds:g}), not {queue.result_expires_seconds}"
        )


def _too_long(path: str, seconds: float, visibility_timeout_seconds: int) -> str:
    return (
        f"{path}: it should be below queue.visibility_timeout_seconds ({visibility_timeout_seconds}),"
        f" not {seconds:g}; a message that takes longer is delivered to a second worker"
    )
