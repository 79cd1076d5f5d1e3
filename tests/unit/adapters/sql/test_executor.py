from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.engines import ProcessEngine
from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.schema import SCHEMA_VERSION
from kvworker.adapters.sql.signals import ConflictError, ConnectionLostError
from kvworker.errors import SchemaError, StoreUnavailableError


class FakeDialect:
    driver_errors = ()

    def check_encoding(self, _connection: Any) -> None:
        """Accept every encoding."""

    def use_schema(self, _version: str) -> None:
        """Use the same statements for every version."""

    def fetch_one(self, _connection: Any, _statement: str, _params: Any) -> tuple[str]:
        return (SCHEMA_VERSION,)


class FakeEngine:
    def __init__(self) -> None:
        self.discarded = 0

    def use(self, work: Callable[[Any], Any]) -> Any:
        return work(None)

    def discard_connections(self) -> None:
        self.discarded += 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def executor(engine: FakeEngine) -> Executor:
    return Executor(cast(Dialect, FakeDialect()), cast(ProcessEngine, engine), migrate_on_start=False)


def failing(*errors: Exception) -> Callable[[Any], str]:
    """Work that fails with each error once, and then succeeds."""
    remaining = list(errors)

    def work(_connection: Any) -> str:
        if remaining:
            raise remaining.pop(0)
        return "done"

    return work


def test_a_success_never_enters_the_retries(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvworker.adapters.sql.executor.Retrying", None)
    assert executor.run(failing()) == "done"


def test_five_conflicts_are_retried_after_random_pauses(executor: Executor, pauses: list[float]) -> None:
    assert executor.run(failing(*[ConflictError("met")] * 5)) == "done"
    assert len(pauses) == 5
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.8), strict=True))


def test_a_sixth_conflict_is_an_error(executor: Executor, pauses: list[float]) -> None:
    with pytest.raises(StoreUnavailableError, match="met") as caught:
        executor.run(failing(*[ConflictError("met")] * 6), "operation")
    assert caught.value.operation_id == "operation"
    assert len(pauses) == 5


def test_a_lost_connection_is_retried_once_and_at_once(
    executor: Executor, engine: FakeEngine, pauses: list[float]
) -> None:
    assert executor.run(failing(ConnectionLostError("lost"))) == "done"
    assert (engine.discarded, sum(pauses)) == (1, 0)
    with pytest.raises(StoreUnavailableError, match="lost"):
        executor.run(failing(ConnectionLostError("lost"), ConnectionLostError("lost")))


def test_conflicts_and_lost_connections_are_counted_apart(executor: Executor, pauses: list[float]) -> None:
    assert executor.run(failing(ConflictError("met"), ConnectionLostError("lost"), ConflictError("met"))) == "done"


def test_other_errors_are_not_retried(executor: Executor, pauses: list[float]) -> None:
    with pytest.raises(SchemaError):
        executor.run(failing(SchemaError("missing")))
    with pytest.raises(StoreUnavailableError, match="away") as caught:
        executor.run(failing(StoreUnavailableError("away")), "operation")
    assert caught.value.operation_id == "operation"
    assert pauses == []


def test_an_error_after_a_lost_connection_does_not_say_that_nothing_was_done(executor: Executor) -> None:
    with pytest.raises(StoreUnavailableError, match=r"lost, and then .*missing"):
        executor.run(failing(ConnectionLostError("lost"), SchemaError("missing")))
