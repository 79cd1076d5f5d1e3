"""The dashboard in a real browser, with a real worker behind it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from kvworker import KeyValueStore
from tests.support.access_metrics import access_failures
from tests.support.chromium import CHROMIUM, MISSING, running_chromium
from tests.support.command_line import clean_environ
from tests.support.processes import ProcessNode, WorkerNode, running, wait_until
from tests.support.servers import free_port

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
#: A busy machine may be slow.
PATIENT = 60_000
NARROW = {"width": 320, "height": 640}


class DashboardNode(ProcessNode):
    """``kvworker dashboard`` with forms, on a free port."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.metrics_port = free_port()
        options = ("--port", "0", "--allow-writes", "--metrics-listen", str(self.metrics_port))
        command = [sys.executable, "-m", "kvworker", "dashboard", *options]
        super().__init__("dashboard", command, directory=directory, environ={**clean_environ(), **environ})

    @property
    def announced(self) -> str:
        """The address that it printed, which holds the key; empty until it listens."""
        found = re.search(r"dashboard at (http://[\d.:]+/sign-in\?key=\S+)", self.logs())
        return found[1] if found else ""

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return self.announced.partition("/sign-in")[0]

    def ready(self) -> bool:
        wait_until(lambda: self.announced or self.status == "exited", timeout_seconds=60, what="the dashboard's start")
        return self.status == "running"


@pytest.fixture
def dashboard(tmp_path: Path, kv_environ: Mapping[str, str], worker_node: WorkerNode) -> Iterator[DashboardNode]:
    with running(DashboardNode(tmp_path, kv_environ)) as node:
        yield node


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


Visit = Callable[..., Page]


@pytest.fixture
def visit(chromium: Browser, dashboard: DashboardNode) -> Iterator[Visit]:
    """Opens pages, and afterwards checks that the browser had nothing to complain of."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_page(path: str, **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENT)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(dashboard.announced)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=PATIENT)
        page.goto(dashboard.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def check_accessible(page: Page) -> None:
    """Let axe look for what keeps people from using the page."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response
    shown = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
    assert shown == []


def fill(store: KeyValueStore) -> list[str]:
    """Fill the store, and return the addresses of the pages."""
    store.set(HOSTILE, HOSTILE, HOSTILE, ttl_seconds=3000)
    for number in range(30):
        store.set(f"team/{number}", "key", {"number": number, "text": "x" * number * 1000})
    name = quote(HOSTILE, safe="")
    entry = f"/entry?namespace={name}&key={name}"
    return ["/", "/sign-in", "/namespaces", f"/namespace?name={name}", entry, f"/namespace/clear?name={name}"]


def test_every_page_is_accessible_in_each_shape(visit: Visit, store: KeyValueStore) -> None:
    for path in fill(store):
        for options in ({}, {"color_scheme": "dark"}, {"viewport": NARROW}):
            page = visit(path, **options)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            check_accessible(page)
            is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.evaluate(is_wider), (path, options)
    light, dark = (
        visit("/", color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    )
    assert light != dark


def test_charts_have_axes_that_people_can_read(visit: Visit, store: KeyValueStore) -> None:
    store.set("n", "k", 1)
    for options in ({}, {"color_scheme": "dark"}, {"viewport": NARROW}):
        page = visit("/", **options)
        depths = page.locator("figure", has_text="Waiting messages")
        expect(depths.locator(".times span")).to_have_count(2, timeout=PATIENT)
        for label in depths.locator(".values span, .times span").all():
            expect(label).to_be_visible()
        assert depths.locator(".values span").last.text_content() == "0"
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", text) for text in depths.locator(".times span").all_text_contents())
        is_cut = (
            "figure => [...figure.querySelectorAll('.plot *')].some(each => each.scrollWidth > each.clientWidth + 1)"
        )
        assert not depths.evaluate(is_cut)
        expect(depths.get_by_role("img")).to_have_accessible_name(re.compile("Waiting messages: .* at most "))
        check_accessible(page)


def test_wrong_keys_are_counted(dashboard: DashboardNode) -> None:
    for _ in range(2):
        assert httpx2.get(f"{dashboard.url}/sign-in?key=wrong", timeout=60).status_code == 401
    assert httpx2.get(dashboard.announced, timeout=60).status_code == 200
    assert access_failures(dashboard.metrics_port, "dashboard") == 2


def test_the_overview_follows_what_happens_until_it_is_paused(visit: Visit, store: KeyValueStore) -> None:
    page = visit("/")
    store.set("team/new", "k", "x" * 100_000)
    expect(page.locator("#live")).to_contain_text("team/new", timeout=PATIENT)
    operations = page.locator("caption", has_text="Operations without success")
    expect(operations).not_to_contain_text("of 0", timeout=PATIENT)
    pause = page.get_by_role("button", name="Pause updates")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "false")
    # A page without scripts shows the same, and has a link to itself.
    still = visit("/", java_script_enabled=False)
    expect(still.locator("#live")).to_contain_text("team/new")
    expect(still.get_by_role("button", name="Pause updates")).to_be_hidden()
    still.get_by_role("link", name="Update now").click()
    expect(still.get_by_role("heading", name="Overview")).to_be_visible()


def test_the_keyboard_reaches_everything(visit: Visit, store: KeyValueStore) -> None:
    fill(store)
    page = visit("/namespaces")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("team/29")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("1 namespace")
    page.get_by_role("link", name="team/29").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Namespace team/29")).to_be_visible()
    page.get_by_role("link", name="key", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Value")).to_contain_text('"number": 29')


def test_columns_sort_and_forms_change_the_store(visit: Visit, store: KeyValueStore) -> None:
    fill(store)
    page = visit("/namespaces")
    header = page.get_by_role("columnheader", name="Namespace")
    header.get_by_role("link").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_role("rowheader").first).to_have_text(HOSTILE)
    page.get_by_role("rowheader").first.get_by_role("link").click()
    page.get_by_label("Own quota").fill("2 KiB")
    page.get_by_role("button", name="Set the quota").click()
    expect(page.get_by_role("status")).to_have_text("The quota was set.")
    assert store.usage(HOSTILE).quota_bytes == 2048
    page.get_by_role("link", name=HOSTILE).click()
    page.get_by_role("button", name="Delete this entry").click()
    expect(page.get_by_role("status")).to_have_text("The entry was deleted.")
    assert not store.get(HOSTILE, HOSTILE).found
    page.goto(page.url.partition("/namespace")[0] + "/namespace/clear?name=team/7")
    page.get_by_label("Type the name").fill("team/7")
    page.get_by_role("button", name="Delete everything").click()
    expect(page.get_by_role("status")).to_have_text("The namespace was cleared.")
    assert store.usage("team/7").entry_count == 0
