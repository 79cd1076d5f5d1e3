"""What callers build on the store: effects that happen once, leases, semaphores, and rate limits of Celery tasks.

The package needs only a facade, with a queue or without one. Facades import it when a method of theirs needs it.
"""

from kvworker.durable.once import Calls, run_once, run_once_async
from kvworker.durable.step_blocks import AsyncDurableStep, DurableStep, current_step
from kvworker.durable.step_options import (
    DEFAULT_RESULT_TTL_SECONDS,
    Done,
    NotDone,
    StepOptions,
    StepRequest,
    UnknownStep,
    done,
    not_done,
)

__all__ = [
    "DEFAULT_RESULT_TTL_SECONDS",
    "AsyncDurableStep",
    "Calls",
    "Done",
    "DurableStep",
    "NotDone",
    "StepOptions",
    "StepRequest",
    "UnknownStep",
    "current_step",
    "done",
    "not_done",
    "run_once",
    "run_once_async",
]
