"""The operations as Celery tasks: one function for each tool, and one for coalesced calls.

Each body delegates to the worker's runtime. ``parents`` holds the result that Celery passes on from the previous
task of a chain, and ``payload`` what ``kvworker.messaging.wire`` describes. Each returns a result as a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from celery import Celery, Task
from celery.app import trace
from celery.utils.log import get_logger

from kvworker.errors import KVStoreError
from kvworker.messaging import wire
from kvworker.tools import TOOLS
from kvworker.worker.operation_log import CelerysLines
from kvworker.worker.runtime import runtime_of

Payload: TypeAlias = dict[str, Any]


def kv_get(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Read an entry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_get"], parents, payload)


def kv_set(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Write an entry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_set"], parents, payload)


def kv_delete(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Remove an entry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_delete"], parents, payload)


def kv_increment(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Add to a counter."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_increment"], parents, payload)


def kv_touch(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Set an entry's expiry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_touch"], parents, payload)


def kv_persist(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Remove an entry's expiry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_persist"], parents, payload)


def kv_acquire_permit(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Take a permit of a lease or semaphore."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_acquire_permit"], parents, payload)


def kv_renew_permit(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Set a permit's expiry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_renew_permit"], parents, payload)


def kv_release_permit(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Give a permit back."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_release_permit"], parents, payload)


def kv_rate_limit(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Take from a rate limit."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_rate_limit"], parents, payload)


def kv_append(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Append items to a list."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_append"], parents, payload)


def kv_merge(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Merge a patch into a value."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_merge"], parents, payload)


def kv_get_and_delete(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Return an entry's value and remove the entry."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_get_and_delete"], parents, payload)


def kv_step_begin(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Reserve a durable step."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_step_begin"], parents, payload)


def kv_step_renew(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Renew the lease of a durable step."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_step_renew"], parents, payload)


def kv_step_finish(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Record how a durable step ended."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_step_finish"], parents, payload)


def kv_step_status(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Tell what is known about a durable step."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_step_status"], parents, payload)


def kv_list_keys(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """List a page of a namespace's entries."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_list_keys"], parents, payload)


def kv_list_namespaces(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """List a page of namespaces."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_list_namespaces"], parents, payload)


def kv_clear(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Remove every entry of a namespace."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_clear"], parents, payload)


def kv_usage(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Tell how much of its quota a namespace or the store uses."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_usage"], parents, payload)


def kv_set_quota(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Set a namespace's own quota."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_set_quota"], parents, payload)


def kv_batch(task: Task, /, *parents: Any, **payload: Any) -> Payload:
    """Apply many operations of a namespace in one transaction."""
    return runtime_of(task).run_operation(task.request, TOOLS["kv_batch"], parents, payload)


def apply_many(task: Task, /, **payload: Any) -> Payload:
    """Apply the coalesced calls of one process; the results are by the calls' task ids."""
    return runtime_of(task).run_coalesced(task.request, payload)


#: The body of each tool's task, by the task's name.
OPERATIONS: Final[Mapping[str, Callable[..., Payload]]] = {
    TOOLS[body.__name__].task_name: body
    for body in (
        kv_get,
        kv_set,
        kv_delete,
        kv_increment,
        kv_touch,
        kv_persist,
        kv_acquire_permit,
        kv_renew_permit,
        kv_release_permit,
        kv_rate_limit,
        kv_append,
        kv_merge,
        kv_get_and_delete,
        kv_step_begin,
        kv_step_renew,
        kv_step_finish,
        kv_step_status,
        kv_list_keys,
        kv_list_namespaces,
        kv_clear,
        kv_usage,
        kv_set_quota,
        kv_batch,
    )
}

_celerys_lines: Final = CelerysLines(frozenset({*OPERATIONS, wire.APPLY_MANY_TASK}))


def register_operations(app: Celery) -> None:
    """Register the task of each tool, and that of coalesced calls.

    Args:
        app: A worker's application, whose ``runtime`` the bodies use.
    """
    options: dict[str, Any] = {
        "bind": True,
        "typing": False,
        "shared": False,
        # Celery logs results, and ours hold stored values, which may be secrets.
        "resultrepr_maxsize": 0,
        "logs_itself": True,
    }
    for name, body in OPERATIONS.items():
        # throws: an error of ours is an answer and not a fault of the worker, so Celery logs it without a traceback.
        app.task(name=name, throws=(KVStoreError,), **options)(body)
    app.task(name=wire.APPLY_MANY_TASK, **options)(apply_many)
    get_logger(trace.__name__).addFilter(_celerys_lines)
