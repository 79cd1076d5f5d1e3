"""The prefork pool of workers, which releases its children when it stops reading their results."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import billiard.pool
import pytest
from billiard.pool import Worker as Child
from celery.concurrency.asynpool import AsynPool, ResultHandler
from celery.concurrency.prefork import TaskPool

from kvworker.worker.prefork import PreforkPool, ReleasingPool, ReleasingResultHandler


def child_may_exit(handler_class: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Stop a result handler with nothing left to read, and tell whether a child that sent a result may exit."""
    monkeypatch.setattr(billiard.pool, "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL", 0)
    counter = SimpleNamespace(value=0)
    handler = handler_class.__new__(handler_class)
    vars(handler).update(
        cache={},
        check_timeouts=None,
        fileno_to_outq={},
        on_state_change=None,
        join_exited_workers=None,
        on_ready_counters={1: counter},
    )
    handler.on_stop_not_started()
    child = SimpleNamespace(on_ready_counter=counter)
    return bool(Child._ensure_messages_consumed(child, completed=1))


def test_a_child_does_not_wait_for_a_worker_that_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not child_may_exit(ResultHandler, monkeypatch), "Celery no longer has this fault, so our pool can go"
    assert child_may_exit(ReleasingResultHandler, monkeypatch)


def test_celerys_own_pool_is_unchanged() -> None:
    assert (PreforkPool.Pool, ReleasingPool.ResultHandler) == (ReleasingPool, ReleasingResultHandler)
    assert (TaskPool.Pool, AsynPool.ResultHandler) == (AsynPool, ResultHandler)
