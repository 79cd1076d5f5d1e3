"""The namespaces that a store knows. ``export --namespace`` reports any other, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.errors import VersionConflictError


@pytest.fixture(params=["postgres", "sqlite"])
def adapter(request: pytest.FixtureRequest) -> Iterator[SqlAdapter]:
    url = request.getfixturevalue(f"{request.param}_url")
    with create_kv_store_adapter(request.param, {"url": url, "migrate_on_start": True}) as adapter:
        assert isinstance(adapter, SqlAdapter)
        yield adapter


def clear(adapter: SqlAdapter) -> None:
    adapter.clear("n")


def delete(adapter: SqlAdapter) -> None:
    adapter.delete("n", "k")


def touch(adapter: SqlAdapter) -> None:
    adapter.touch("n", "k", ttl_seconds=60)


def reset_the_quota(adapter: SqlAdapter) -> None:
    adapter.set_quota("n", None)


def be_refused(adapter: SqlAdapter) -> None:
    clear(adapter)
    with attempt("message"), pytest.raises(VersionConflictError):
        adapter.set("n", "k", 1, expected_version=7)


@pytest.mark.parametrize("operation", [clear, delete, touch, reset_the_quota, be_refused])
def test_an_operation_that_found_nothing_makes_no_namespace_known(
    adapter: SqlAdapter, operation: Callable[[SqlAdapter], object]
) -> None:
    """Its record made a mistyped namespace known, so that an export of it replaced the file by an empty one."""
    operation(adapter)
    assert adapter.usage("n")[0].record_count > 0
    assert not adapter.knows("n")


@pytest.mark.parametrize("operation", [clear, delete])
def test_a_namespace_that_has_been_emptied_stays_known(
    adapter: SqlAdapter, operation: Callable[[SqlAdapter], object]
) -> None:
    adapter.set("n", "k", 1)
    assert adapter.knows("n")
    operation(adapter)
    assert adapter.usage("n")[0].entry_count == 0
    assert adapter.knows("n")


def test_a_namespace_with_its_own_quota_is_known(adapter: SqlAdapter) -> None:
    assert not adapter.knows("n")
    adapter.set_quota("n", 1000)
    assert adapter.knows("n")
