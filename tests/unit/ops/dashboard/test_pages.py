"""The pages' content. No name or value becomes markup."""

from __future__ import annotations

import re
import sqlite3
import tracemalloc
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from kvworker import InlineKeyValueStore
from kvworker.model import BlockingSession, DatabaseConnections, LedgerUsage, TableLock
from kvworker.ops.dashboard.rendering import MOST_CHARACTERS, link
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, StoreParts, WorkersState
from kvworker.ops.overview.parts import Part
from tests.unit.ops.dashboard.conftest import FixedHistory, Open

HOSTILE = "\"><script>alert(1)</script>'{{ 'a' * 30 }}\u202e\x1b[31m&amp;"


def test_the_overview_names_what_cannot_be_read(open_dashboard: Open) -> None:
    page = open_dashboard().get("/")
    assert page.status_code == 200
    assert "the broker &lt;b&gt;is&lt;/b&gt; away" in page.text
    assert "77 bytes, 7 entries" in page.text
    assert "nothing is known yet" in page.text


def test_the_overview_shows_what_was_dropped_late(open_dashboard: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet((WorkerAnswer("w", "", state={"totals": {"events": {"late_messages_dropped": 1200, "retries": 3}}}),))
    recent = Activity(5.0, {("events", "late_messages_dropped"): 60})
    monkeypatch.setattr(FixedHistory, "overview", Overview(1.8e9, workers=Part(WorkersState(fleet, recent))))
    page = open_dashboard().get("/").text
    assert "<dt>Dropped late per second</dt><dd>12.0</dd>" in page
    assert "<td>60</td><td>1,200</td>" in page
    assert '<th scope="row">retries</th><td>0</td><td>3</td>' in page


def test_a_lock_is_named_beside_what_cannot_be_read(open_dashboard: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = TableLock("kv_entries", "ShareLock", 5, "<u>", "p", 1.5)
    blocker = BlockingSession(6, "u", "p", None, 2, 3.0)
    connections = Part(DatabaseConnections(9, 1, 2, 4, 3, 100, (lock,), (blocker,)))
    problem = Part[LedgerUsage](problem="a lock was not granted in time")
    stores = {"postgres": StoreParts(total=problem, connections=connections)}
    monkeypatch.setattr(FixedHistory, "overview", Overview(1.8e9, stores=stores))
    page = open_dashboard().get("/").text
    box = re.search(r'<section class="problems".*?</section>', page, re.DOTALL)
    assert box is not None
    for text in (
        "postgres: kv_entries is locked: process 5 (user <u>, program p) holds ShareLock",
        "postgres: rows are locked: process 6 (user u, program p) keeps 2 sessions waiting for 3 s",
        "a lock was not granted in time",
    ):
        assert text in unescape(box[0])
    assert page.count("is locked") == 1


def test_namespaces_can_be_sorted_and_searched(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    for number in range(150):
        store.set(f"run/{number:03}", "k", "x" * number)
    store.set("other", "k", 1)
    browser = open_dashboard()

    def names(**parameters: object) -> list[str]:
        html = browser.get(link("/namespaces", **parameters)).text
        return re.findall(r'<bdi class="name">(.+?)</bdi>', html)

    assert names()[:2] == ["run/149", "run/148"]
    assert len(names()) == 100
    assert names(sort="used_bytes", page=2)[-2:] == ["run/000", "other"]
    assert names(sort="namespace")[0] == "other"
    assert names(sort="namespace", order="desc")[0] == "run/149"
    assert names(sort="used_bytes", order="asc")[0] == "other"
    assert names(search="oth") == ["other"]
    assert names(page=3) == names(search="nothing") == []
    assert "</meter> 0.0% (bytes)</td>" in browser.get("/namespaces").text
    assert "151 namespaces" in browser.get("/namespaces").text
    # Anything else in the address is ignored, or as wrong as it is.
    assert names(sort="value; DROP", order="up", page="-1") == names()
    for digits in (20, 5000):
        assert names(page="9" * digits) == names()
    assert browser.get("/namespaces?search=%00").status_code == 400


def test_ten_thousand_namespaces_can_be_sorted_and_searched(
    open_dashboard: Open, store: InlineKeyValueStore, tmp_path: Path
) -> None:
    store.set("z", "k", 1)
    with closing(sqlite3.connect(tmp_path / "kv.sqlite")) as connection, connection:
        connection.executemany(
            "INSERT INTO kv_ledgers (namespace, slot, used_bytes, entry_count, limit_bytes, entry_limit, record_limit)"
            " VALUES (?, 0, ?, 1, 1000000, 1000000, 1000000)",
            ((f"run/{number:04}", number + 100) for number in range(9_999)),
        )
    browser = open_dashboard()

    def names(**parameters: object) -> list[str]:
        html = browser.get(link("/namespaces", **parameters)).text
        assert "10,000 namespaces" in html or "search" in parameters
        return re.findall(r'<bdi class="name">(.+?)</bdi>', html)

    assert names()[:2] == ["run/9998", "run/9997"]
    assert names(sort="namespace", page=100)[-2:] == ["run/9998", "z"]
    assert names(sort="used_bytes", order="asc")[:2] == ["z", "run/0000"]
    assert names(search="77", sort="namespace") == [f"run/{n:04}" for n in range(9_999) if "77" in f"{n:04}"][:100]


def test_a_namespace_lists_its_keys_by_prefix_and_page(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    with store.pipeline() as pipeline:
        for number in range(101):
            pipeline.set("n", f"a/{number:03}", "12", ttl_seconds=7200)
    store.set("n", "b", 1)
    browser = open_dashboard()
    page = browser.get("/namespace?name=n").text
    assert page.count("<bdi") == 101
    assert "2 h" in page
    following = re.search(r'rel="next" href="(.+?)"', page)
    assert following is not None
    rest = browser.get(unescape(following[1])).text
    assert ("a/100" in rest, "a/099" in rest) == (True, False)
    assert browser.get("/namespace?name=n&prefix=b").text.count("<bdi") == 2
    assert browser.get("/namespace?name=").status_code == 400


def test_an_entry_shows_value_size_ttl_and_version(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    version = store.set("n", "k", {"ü": ["<i>", "\u202e"]}, ttl_seconds=90).version
    browser = open_dashboard()
    page = browser.get("/entry?namespace=n&key=k")
    text = unescape(page.text)
    assert '{\n  "ü": [\n    "<i>",\n    "\\u202e"\n  ]\n}' in text
    assert str(version) in text
    assert "1.5 min" in text
    assert "20 bytes" in text
    assert browser.get("/entry?namespace=n&key=none").status_code == 404
    store.set("n", "long", "x" * (MOST_CHARACTERS + 10))
    assert "This is the beginning" in browser.get("/entry?namespace=n&key=long").text


def test_a_deep_value_is_written_only_as_far_as_it_is_shown(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    value: Any = [0] * 50_000
    for _ in range(200):
        value = [value]
    store.set("n", "k", value)
    browser = open_dashboard()
    tracemalloc.start()
    try:
        page = browser.get("/entry?namespace=n&key=k")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "This is the beginning" in page.text
    # All of its lines have 20 million characters.
    assert peak_bytes < 10_000_000


@pytest.mark.parametrize("allows_writes", [False, True])
def test_no_name_or_value_becomes_markup(open_dashboard: Open, store: InlineKeyValueStore, allows_writes: bool) -> None:
    store.set(HOSTILE, HOSTILE, HOSTILE)
    browser = open_dashboard(allows_writes=allows_writes)
    addresses = [
        "/namespaces",
        link("/namespaces", search=HOSTILE),
        link("/namespace", name=HOSTILE),
        link("/namespace", name=HOSTILE, prefix=HOSTILE),
        link("/entry", namespace=HOSTILE, key=HOSTILE),
        link("/entry", namespace=HOSTILE, key="none"),
        link("/namespace/clear", name=HOSTILE),
        link("/namespace", name=HOSTILE, done=HOSTILE),
        link("/entry", namespace=HOSTILE * 20, key=HOSTILE),
    ]
    for address in addresses:
        html = browser.get(address).text
        assert "<script>" not in html
        assert "a" * 30 not in html
        assert html.count("<script") == 1, address
        # Text cannot be reversed or hidden; a field holds it as it is, so that it can be sent back.
        assert "\u202e" not in re.sub(r'value="[^"]*"', "", html), address
        # The policy forbids inline styles and scripts.
        assert not re.search(r"<[^>]+ (style|on\w+)=", html), address


def test_a_page_that_does_not_exist_says_so(open_dashboard: Open) -> None:
    page = open_dashboard().get("/missing")
    assert page.status_code == 404
    assert "There is no such page." in page.text
    assert open_dashboard().get("/static/../app.py").status_code == 404
    assert open_dashboard().put("/", headers={"Origin": "http://127.0.0.1:9810"}).status_code == 405
