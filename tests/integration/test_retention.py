"""The retention of operation records, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvworker.model import GeneratedOperationId
from kvworker.testing import AdapterFactory, eventually
from tests.support.adapters import adapters_over


@pytest.fixture(params=["postgres", "sqlite"])
def make_adapter(request: pytest.FixtureRequest) -> Iterator[AdapterFactory]:
    block = {"url": request.getfixturevalue(f"{request.param}_url"), "migrate_on_start": True}
    with adapters_over(request.param, block) as factory:
        yield factory


def test_records_of_generated_ids_are_kept_for_their_own_retention(make_adapter: AdapterFactory) -> None:
    adapter = make_adapter(generated_id_retention_seconds=0.2)  # type: ignore[call-arg]
    adapter.set("n", "k", 1)
    adapter.set("n", "k", 2, operation_id=GeneratedOperationId("task"))
    adapter.set("n", "k", 3, operation_id="mine")
    # The same id stays the same, chosen or generated.
    assert adapter.set("n", "k", 2, operation_id="task").replayed
    pruned = 0

    def prune() -> bool:
        nonlocal pruned
        pruned += adapter.prune_operations().deleted_rows
        return pruned == 2

    eventually(prune)
    assert not adapter.was_applied("n", "task")
    assert adapter.was_applied("n", "mine")


def test_generated_ids_are_not_kept_for_longer_than_others(make_adapter: AdapterFactory) -> None:
    adapter = make_adapter(operation_retention_seconds=0.2)
    adapter.set("n", "k", 1)
    eventually(lambda: adapter.prune_operations().deleted_rows == 1)
