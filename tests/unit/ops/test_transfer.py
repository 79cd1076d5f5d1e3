"""Imports: their batches, their repetition, and the report of an interrupted one. The store has no queue here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from kvworker import InlineKeyValueStore
from kvworker.client.sync import KeyValueStore
from kvworker.errors import KVStoreError, OperationTimeoutError, StoreUnavailableError
from kvworker.inline import InlineResult
from kvworker.messaging.message_size import check_message_size
from kvworker.messaging.wire import encode_request
from kvworker.ops.entry_lines import format_line, format_quota, parse_line, read_lines
from kvworker.ops.import_report import ImportReport
from kvworker.ops.transfer import Importer
from kvworker.settings import Settings
from kvworker.tools import check_arguments, find_tool


class CountingStore(InlineKeyValueStore):
    """Counts the calls, and can be interrupted by one of them."""

    calls = 0
    interrupted_by = 0
    unanswered_by: KVStoreError | None = None

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> InlineResult:
        self.calls += 1
        if self.unanswered_by:
            return InlineResult("id", self.unanswered_by)
        if self.calls == self.interrupted_by:
            raise KeyboardInterrupt
        return super().submit(tool, arguments, timeout=timeout)


class MessageStore(InlineKeyValueStore):
    """Refuses calls that are too large for a message, as a store with a queue does."""

    def submit(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> InlineResult:
        checked = check_arguments(find_tool(tool), arguments)
        payload = encode_request(checked, deadline=None)
        check_message_size(checked, payload, self.settings.queue.max_message_bytes)
        return super().submit(tool, arguments, timeout=timeout)


@pytest.fixture
def store() -> Iterator[CountingStore]:
    block = {"url": "sqlite://", "namespace_quota_bytes": 1000}
    settings = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}}
    with CountingStore(Settings.from_mapping(settings)) as opened:
        yield opened


def entry(key: str, value: Any = 1, namespace: str = "n") -> bytes:
    return json.dumps({"namespace": namespace, "key": key, "value": value}).encode() + b"\n"


def make_importer(store: InlineKeyValueStore, *, stop_on_error: bool = False) -> Importer:
    return Importer(cast(KeyValueStore, store), "id", timeout=None, stop_on_error=stop_on_error)


def run(store: InlineKeyValueStore, *lines: bytes, stop_on_error: bool = False) -> ImportReport:
    return make_importer(store, stop_on_error=stop_on_error).run(lambda: lines, lambda _size: None)


def test_lines_go_in_batches(store: CountingStore) -> None:
    lines = [entry(f"{number}", namespace=f"n{number % 5}") for number in range(1000)]
    report = run(store, *lines)
    assert (report.applied, report.errors) == (1000, [])
    assert store.calls == 5
    assert store.usage("n3").entry_count == 200


def test_a_repeated_import_applies_nothing_twice(store: CountingStore) -> None:
    lines = [entry(f"{number}", namespace=f"n{number % 3}") for number in range(500)]
    run(store, *lines)
    store.set("n0", "0", "newer")
    report = run(store, *lines)
    assert (report.applied, report.replayed) == (0, 500)
    assert store.get("n0", "0").value == "newer"


def test_own_quotas_travel_and_come_before_the_entries(store: CountingStore) -> None:
    line = format_quota("n", 5000).encode()
    assert parse_line(line, 1000) == {"namespace": "n", "quota_bytes": 5000}
    report = run(store, line, *(entry(f"{number}", "x" * 98) for number in range(40)))
    assert (report.applied, report.errors) == (41, [])
    usage = store.usage("n")
    assert (usage.used_bytes, usage.quota_bytes) == (4000, 5000)


def test_a_line_that_was_refused_is_applied_by_a_repeated_import_when_there_is_room(store: CountingStore) -> None:
    lines = [entry(f"{number}", "x" * 398) for number in range(4)]
    report = run(store, *lines)
    assert report.applied == 2
    assert [error.line for error in report.errors] == [3, 4]
    store.set_quota("n", 5000)
    report = run(store, *lines)
    assert (report.applied, report.replayed, report.errors) == (2, 2, [])


def test_a_refused_line_does_not_replace_a_later_line_for_its_key(store: CountingStore) -> None:
    lines = [entry("k", "x" * 2000), entry("k", "short")]
    report = run(store, *lines)
    assert [error.line for error in report.errors] == [1]
    store.set_quota("n", 5000)
    run(store, *lines)
    assert store.get("n", "k").value == "short"


def test_refusals_take_no_further_calls(store: CountingStore) -> None:
    store.set_quota("n", 1)
    lines = [entry(f"{number}", "no room") for number in range(2000)]
    report = run(store, *lines)
    assert (report.applied, len(report.errors), store.calls) == (0, 2000, 10)
    assert [error.line for error in report.errors] == list(range(1, 2001))


def test_each_repeated_import_tries_once_more_what_the_one_before_was_refused(store: CountingStore) -> None:
    lines = [entry(f"{number}", "x" * 98) for number in range(600)]
    for room in (10, 11, 11, 250, 600, 600):
        store.set_quota("n", 100 * room)
        before = store.usage("n").entry_count
        report = run(store, *lines)
        assert (report.applied, report.replayed, len(report.errors)) == (room - before, before, 600 - room)
        assert store.usage("n").entry_count == room


def test_a_line_that_is_applied_late_is_not_applied_again(store: CountingStore) -> None:
    lines = [entry(f"{number}", "x" * 398) for number in range(4)]
    run(store, *lines)
    store.set_quota("n", 5000)
    run(store, *lines)
    store.set("n", "3", "newer")
    report = run(store, *lines)
    assert (report.applied, report.replayed) == (0, 4)
    assert store.get("n", "3").value == "newer"


def test_a_line_that_is_tried_again_does_not_replace_a_line_for_its_key_in_a_later_batch(store: CountingStore) -> None:
    lines = [entry("k", "x" * 2000), *(entry(f"{number}", 1) for number in range(400)), entry("k", "short")]
    report = run(store, *lines)
    assert [error.line for error in report.errors] == [1]
    store.set_quota("n", 5000)
    report = run(store, *lines)
    assert [error.line for error in report.errors] == [1]
    assert store.get("n", "k").value == "short"


def test_lines_that_repeat_a_key_are_reported(store: CountingStore) -> None:
    report = run(store, entry("a", 1), entry("b", 1), entry("a", 2), entry("a", 3, namespace="m"), entry("a", 4))
    assert report.repeated == [3, 5]
    assert report.to_dict()["repeated"] == [3, 5]
    assert store.get("n", "a").value == 4


def test_quotas_are_set_in_the_order_of_the_lines(store: CountingStore) -> None:
    def quota(size_bytes: int) -> bytes:
        return format_quota("n", size_bytes).encode()

    fits, refused = entry("a", "x" * 500), entry("b", "x" * 500)
    report = run(store, quota(600), fits, refused, quota(2000), entry("c", "x" * 500), quota(10), entry("d", "xxx"))
    assert [error.line for error in report.errors] == [3, 7]
    assert store.usage("n").quota_bytes == 10


def test_a_line_that_no_message_can_hold_fails_alone(tmp_path: Path) -> None:
    block = {"url": "sqlite://"}
    stores = {"default_adapter": "sqlite", "adapters": {"sqlite": block}}
    settings = Settings.from_mapping({"tools": {"kv_store": stores}, "queue": {"max_message_bytes": 65536}})
    file = tmp_path / "lines.jsonl"
    # The first is longer than a message. The second is not, until its message is encoded.
    large = [entry("a", "x" * 3_000_000), entry("b", "é" * 10_000)]
    file.write_bytes(b"".join([*large, *(entry(f"{number}", "é" * 30) for number in range(500))]))
    with MessageStore(settings) as store, file.open("rb") as source:
        report = make_importer(store).run(lambda: read_lines(source, 65536), lambda _size: None)
    assert [error.line for error in report.errors] == [1, 2]
    assert "queue.max_message_bytes" in report.errors[0].error
    assert "queue.max_message_bytes" in report.errors[1].error
    assert report.applied == 500


@pytest.mark.parametrize("error", [OperationTimeoutError("id"), StoreUnavailableError("it is down", "id")])
def test_an_import_ends_if_no_worker_or_no_database_answers(store: CountingStore, error: KVStoreError) -> None:
    store.unanswered_by = error
    importer = make_importer(store)
    lines = [entry(f"{number}") for number in range(2000)]
    with pytest.raises(type(error)):
        importer.run(lambda: lines, lambda _size: None)
    # Eight batches were in flight, and the first of them was tried three times.
    assert (store.calls, importer.report.unanswered) == (10, 1600)


def test_an_interrupted_import_reports_what_it_did(store: CountingStore) -> None:
    store.interrupted_by = 12
    importer = make_importer(store)
    lines = [entry(f"{number}", namespace=f"n{number // 200}") for number in range(4000)]
    with pytest.raises(KeyboardInterrupt):
        importer.run(lambda: lines, lambda _size: None)
    report = importer.report
    # The twelfth batch was not sent, and up to eight of the others were not looked at.
    assert report.applied + report.unanswered == 11 * 200
    assert report.applied >= 3 * 200


def test_an_import_stops_at_an_error_if_told_to(store: CountingStore) -> None:
    report = run(store, entry("a"), b"nonsense\n", entry("b"), stop_on_error=True)
    assert [error.line for error in report.errors] == [2]
    assert not store.get("n", "b").found


def test_an_exported_entry_is_read_back(store: CountingStore) -> None:
    store.set("n", "k", {"a": ["é"]}, ttl_seconds=60)
    parsed = parse_line(format_line(store.get("n", "k")).encode(), 1000)
    assert (parsed["namespace"], parsed["key"], parsed["value"].value) == ("n", "k", {"a": ["é"]})
    assert 0 < parsed["ttl_seconds"] <= 60
