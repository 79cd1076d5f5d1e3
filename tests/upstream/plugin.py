"""A pytest plugin for LangGraph's tests that replaces LangGraph's stores with kvworker's."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import ClassVar, cast

import pytest
from langgraph.store.base import IndexConfig, TTLConfig

from kvworker import InlineKeyValueStore, Settings
from kvworker.integrations.langgraph import KvworkerStore

# A relative import, because LangGraph's tests are the package `tests` here.
from .inapplicable import INAPPLICABLE


class _StandIn(KvworkerStore):
    made: ClassVar[int] = 0

    def __init__(
        self, inline: InlineKeyValueStore, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> None:
        super().__init__(inline, index=index, ttl=ttl)
        self.inline = inline
        _StandIn.made += 1


class _MemoryStandIn(_StandIn):
    def __init__(self, *, index: IndexConfig | None = None) -> None:
        super().__init__(InlineKeyValueStore(), index)


def _langgraphs(index: IndexConfig | None) -> IndexConfig | None:
    """Rename the field that only SqliteStore calls ``text_fields``."""
    if index is None:
        return None
    return cast(IndexConfig, {"fields": index.get("text_fields"), **index})


class _SqliteStandIn(_StandIn):
    @classmethod
    @contextmanager
    def from_conn_string(
        cls, path: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> Iterator[_StandIn]:
        sqlite = {"url": "sqlite://" if path == ":memory:" else f"sqlite:///{path}", "migrate_on_start": True}
        tools = {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": sqlite}}}
        with InlineKeyValueStore(Settings.from_mapping({"tools": tools})) as inline:
            yield cls(inline, _langgraphs(index), ttl)

    def setup(self) -> None:
        """Do nothing. A sweeper is not needed either: expired items are never read."""

    start_ttl_sweeper = stop_ttl_sweeper = setup

    def sweep_ttl(self) -> int:
        return self.inline.adapter.sweep_expired().deleted_rows


class _AsyncSqliteStandIn(_StandIn):
    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, path: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> AsyncIterator[_StandIn]:
        with _SqliteStandIn.from_conn_string(path) as store:
            yield cls(store.inline, _langgraphs(index), ttl)

    async def setup(self) -> None:
        """Do nothing, for the same reason."""

    start_ttl_sweeper = stop_ttl_sweeper = setup

    async def sweep_ttl(self) -> int:
        return self.inline.adapter.sweep_expired().deleted_rows


_STAND_INS = (
    ("langgraph.store.memory", "InMemoryStore", _MemoryStandIn),
    ("langgraph.store.sqlite", "SqliteStore", _SqliteStandIn),
    ("langgraph.store.sqlite", "AsyncSqliteStore", _AsyncSqliteStandIn),
    ("langgraph.store.sqlite.aio", "AsyncSqliteStore", _AsyncSqliteStandIn),
)


class _Suite:
    def __init__(self, name: str) -> None:
        self._reasons = {f"tests/{test}": why for why, tests in INAPPLICABLE[name].items() for test in tests}
        self._passed_with_store = 0
        self._made_before = 0

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        names = {item: item.nodeid.partition("[")[0] for item in items}
        if gone := self._reasons.keys() - names.values():
            raise pytest.UsageError(f"inapplicable.py names tests that are gone: {', '.join(sorted(gone))}")
        for item, name in names.items():
            if name in self._reasons:
                # Strict: a test that passes must leave the table. Without the stand-ins, all of them would pass.
                item.add_marker(pytest.mark.xfail(reason=self._reasons[name], strict=True))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._passed_with_store += report.passed and _StandIn.made > self._made_before
        elif report.when == "teardown":
            self._made_before = _StandIn.made

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        outcomes = terminalreporter.stats
        passed = len(outcomes.get("passed", ()))
        terminalreporter.section("on kvworker's store")
        terminalreporter.line(f"{passed} passed: {self._passed_with_store} with a store, the others need none")
        for why, tests in Counter(report.wasxfail for report in outcomes.get("xfailed", ())).items():
            terminalreporter.line(f"{tests} cannot pass: {why}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", required=True)


def pytest_configure(config: pytest.Config) -> None:
    for module, name, stand_in in _STAND_INS:
        setattr(import_module(module), name, stand_in)
    config.pluginmanager.register(_Suite(config.getoption("suite")))
