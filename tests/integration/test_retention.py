"""The retention of operation records, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

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


def test_the_version_of_an_entry_does_not_change_how_long_its_records_are_kept(
    make_adapter: AdapterFactory, request: pytest.FixtureRequest
) -> None:
    """The clock was ten years ahead when the entry was written. Records that stay would fill their limit."""
    adapter = make_adapter(operation_retention_seconds=0.2)
    adapter.set("n", "k", 1)
    name = request.node.callspec.params["make_adapter"]
    engine = create_engine(request.getfixturevalue(f"{name}_url"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE kv_entries SET version = version + 315360000000000"))
    engine.dispose()
    writes: list[Callable[[], Any]] = [
        lambda: adapter.set("n", "k", 2, operation_id="set"),
        lambda: adapter.increment("n", "k", ttl_seconds=60, operation_id="increment"),
        lambda: adapter.set("n", "k", 33, keep_ttl=True, operation_id="planned"),
        lambda: adapter.delete("n", "k", operation_id="delete"),
    ]
    for write in writes:
        first, again = write(), write()
        assert again.replayed
        assert getattr(again, "version", None) == getattr(first, "version", None)
    pruned = 0

    def prune() -> bool:
        nonlocal pruned
        pruned += adapter.prune_operations().deleted_rows
        return pruned == 1 + len(writes)

    eventually(prune, timeout_seconds=60)
    report = adapter.verify()
    assert report is not None
    assert report.problems == ()
