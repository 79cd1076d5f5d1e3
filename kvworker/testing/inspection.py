"""Cases: what operators see of a store. A backend may be unable to tell all but the order of namespaces."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidKeyError, InvalidRequestError
from kvworker.model import ExpiryReport, JSONValue, UsageQuery
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, text_of, wait_for_expiry


def _names(adapter: KeyValueStoreAdapter, query: UsageQuery) -> list[str | None]:
    return [ledger.namespace for ledger in adapter.rank_usage(query).ledgers]


class InspectionCases(Cases):
    """Namespaces in order of their usage, expiry ahead, tables and connections."""

    def test_namespaces_come_in_the_order_of_their_fullness(self, make_adapter: AdapterFactory) -> None:
        """The fullest namespace has used the largest share of its own or the common quota."""
        adapter = make_adapter(namespace_quota_bytes=1000)
        adapter.set("large", "k", text_of(500))
        adapter.set("small", "k", text_of(90))
        adapter.set_quota("small", 100)
        adapter.set("smallest", "k", text_of(10))
        page = adapter.rank_usage(UsageQuery(limit=2))
        assert [(ledger.namespace, ledger.quota_bytes) for ledger in page.ledgers] == [("small", 100), ("large", 1000)]
        assert page.total_count == 3
        assert _names(adapter, UsageQuery(limit=2, offset=2)) == ["smallest"]
        assert _names(adapter, UsageQuery(descending=False)) == ["smallest", "large", "small"]

    def test_namespaces_can_be_ordered_by_each_number_and_by_name(self, adapter: KeyValueStoreAdapter) -> None:
        """Equal ones come in the order of their names. The whole store is not among them."""
        values_of: dict[str, list[JSONValue]] = {"b": [text_of(100)], "a": [1, 2, 3], "c": [1]}
        for namespace, values in values_of.items():
            for number, value in enumerate(values):
                adapter.set(namespace, str(number), value)
        assert _names(adapter, UsageQuery("used_bytes")) == ["b", "a", "c"]
        assert _names(adapter, UsageQuery("entry_count")) == ["a", "b", "c"]
        assert _names(adapter, UsageQuery("namespace", descending=False)) == ["a", "b", "c"]
        assert _names(adapter, UsageQuery("namespace")) == ["c", "b", "a"]
        assert sorted(map(str, _names(adapter, UsageQuery("record_count")))) == ["a", "b", "c"]

    def test_a_search_and_patterns_choose_namespaces_literally(self, adapter: KeyValueStoreAdapter) -> None:
        """Only the star of a pattern is special. Neither ignores case."""
        names = ["run/1", "run/2", "Run/3", "100%", "100_", "1000", "[ab]", "a?", "ab", "a!"]
        for name in names:
            adapter.set(name, "k", 1)
        by_name = UsageQuery("namespace", descending=False)
        for search in ("", "run/", "%", "_", "[", "?", "!", "RUN"):
            query = UsageQuery("namespace", descending=False, search=search)
            assert _names(adapter, query) == sorted(name for name in names if search in name)
        assert _names(adapter, by_name) == sorted(names)
        for patterns, found in (
            (("run/*",), ["run/1", "run/2"]),
            (("*/*", "ab"), ["Run/3", "ab", "run/1", "run/2"]),
            (("100%",), ["100%"]),
            (("100_", "a?", "a!", "[ab]"), ["100_", "[ab]", "a!", "a?"]),
            ((), []),
        ):
            query = UsageQuery("namespace", descending=False, patterns=patterns)
            assert _names(adapter, query) == found

    def test_a_prefix_chooses_namespaces_literally(self, adapter: KeyValueStoreAdapter) -> None:
        """No character of it is special, it does not ignore case, and search and patterns choose among its names."""
        names = ["a/1", "a/2", "A/3", "ab/4", "*/5", "%/6", "_/7", "[a]/8", "ü/9", "x/a/1"]
        for name in names:
            adapter.set(name, "k", 1)
        for prefix in ("a/", "A/", "a", "*/", "%/", "_/", "[a]/", "ü/", "", "b/"):
            page = adapter.rank_usage(UsageQuery("namespace", descending=False, prefix=prefix))
            found = sorted(name for name in names if name.startswith(prefix))
            assert ([ledger.namespace for ledger in page.ledgers], page.total_count) == (found, len(found))
        query = UsageQuery("namespace", descending=False, search="1", patterns=("*/1", "ab/*"), prefix="a/")
        assert _names(adapter, query) == ["a/1"]

    @pytest.mark.parametrize(
        ("query", "error"),
        [
            (UsageQuery(limit=0), InvalidRequestError),
            (UsageQuery(limit=1001), InvalidRequestError),
            (UsageQuery(offset=-1), InvalidRequestError),
            (UsageQuery("value"), InvalidRequestError),  # type: ignore[arg-type]
            (UsageQuery(search="\0"), InvalidKeyError),
            (UsageQuery(prefix="\0"), InvalidKeyError),
        ],
    )
    def test_an_invalid_query_is_refused(
        self, adapter: KeyValueStoreAdapter, query: UsageQuery, error: type[Exception]
    ) -> None:
        """The error says what the fault is."""
        with pytest.raises(error):
            adapter.rank_usage(query)

    def test_expiry_ahead_counts_live_entries_and_those_not_swept_yet(self, adapter: KeyValueStoreAdapter) -> None:
        """Each entry is in the range of its expiry. A sweep ends the lag."""
        if adapter.expiry_report() is None:
            return
        for number, ttl_seconds in enumerate((SHORT_TTL_SECONDS, 50, 3000, 3100, 40_000, None)):
            adapter.set("n", str(number), 1, ttl_seconds=ttl_seconds)
        wait_for_expiry(adapter, "n", "0")
        report = adapter.expiry_report() or ExpiryReport(0, 0, ())
        assert (report.unswept_count, report.sweep_lag_seconds > 0) == (1, True)
        assert [each.entry_count for each in report.ahead] == [1, 2, 1, 0, 0]
        assert report.cumulative()[1] == (3600, 3)
        adapter.sweep_expired()
        swept = adapter.expiry_report() or ExpiryReport(1, 1, ())
        assert (swept.unswept_count, swept.sweep_lag_seconds) == (0, 0)

    def test_sizes_and_connections_are_told_where_they_are_known(self, adapter: KeyValueStoreAdapter) -> None:
        """A size covers the indexes, and the adapter's own connection is among the connections."""
        adapter.set("n", "k", 1)
        for size in adapter.table_sizes() or ():
            assert size.total_bytes >= size.table_bytes > 0
        connections = adapter.database_connections()
        assert connections is None or connections.limit >= connections.total >= connections.active >= 1
