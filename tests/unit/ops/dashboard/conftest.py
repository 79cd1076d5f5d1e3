from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from kvworker import InlineKeyValueStore, Settings
from kvworker.access import Address, TokenFile
from kvworker.messaging.queue_readiness import QueueReadiness
from kvworker.model import LedgerUsage
from kvworker.ops.dashboard import stores as stores_module
from kvworker.ops.dashboard.app import make_app
from kvworker.ops.dashboard.door import Door
from kvworker.ops.dashboard.guard import Guard
from kvworker.ops.dashboard.pages import Pages
from kvworker.ops.dashboard.stores import Stores
from kvworker.ops.dashboard.viewers import Viewers
from kvworker.ops.overview.collector import Overview, StoreParts
from kvworker.ops.overview.parts import Part
from tests.support.servers import free_port

ORIGIN = "http://127.0.0.1:9810"


class FixedHistory:
    """An overview that never changes."""

    overview = Overview(
        1.8e9,
        Part(problem="the broker <b>is</b> away"),
        stores={"sqlite": StoreParts(total=Part(LedgerUsage(None, 77, 7, None)))},
    )

    def latest(self) -> Overview:
        """Return the overview."""
        return self.overview

    def samples(self) -> tuple[()]:
        """Return no samples."""
        return ()


class Browser(TestClient):
    """A client that sends forms as a page of the dashboard does."""

    def submit(self, page: str, action: str, **fields: str) -> Any:
        """Send a form of a page with its hidden fields, and some changed."""
        html = self.get(page).text
        form = re.search(rf'<form method="post" action="{re.escape(action)}".*?</form>', html, re.DOTALL)
        assert form is not None, html
        hidden = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[0]))
        return self.post(action, data={**hidden, **fields}, headers={"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"})


Open = Callable[..., Browser]


@pytest.fixture
def mapping(tmp_path: Path) -> dict[str, Any]:
    """The configuration, which a test may change."""
    block = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True}
    return {
        "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}},
        "queue": {"broker_url": f"redis://127.0.0.1:{free_port()}/0"},
    }


@pytest.fixture
def open_dashboard(mapping: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the dashboard of a store whose tools run in this process."""
    monkeypatch.setattr(stores_module, "KeyValueStore", InlineKeyValueStore)
    with ExitStack() as closing:

        def open_it(
            *,
            allows_writes: bool = False,
            persona: str | None = None,
            tokens: Path | None = None,
            signed_in: bool = True,
        ) -> Browser:
            settings = Settings.from_mapping(mapping, environ={})
            viewers = Viewers(settings, persona, TokenFile(tokens) if tokens else None)
            viewers.check()
            stores = Stores(settings)
            closing.callback(stores.close)
            pages = Pages(FixedHistory(), stores, allows_writes)  # type: ignore[arg-type]
            app = make_app(pages, Door(pages, viewers, "kvworker_9810"), QueueReadiness(settings))
            guarded = Guard(app, Address("127.0.0.1", 9810).host_names())
            browser = closing.enter_context(Browser(guarded, ORIGIN))
            if viewers.key and signed_in:
                assert browser.get(f"/sign-in?key={viewers.key}").status_code == 200
            return browser

        yield open_it


@pytest.fixture
def store(mapping: dict[str, Any]) -> Iterator[InlineKeyValueStore]:
    """The same store, without policies."""
    settings = Settings.from_mapping({"tools": mapping["tools"]}, environ={})
    with InlineKeyValueStore(settings) as store:
        yield store
