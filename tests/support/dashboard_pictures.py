"""Takes the pictures of the dashboard that the documentation shows: ``python -m tests.support.dashboard_pictures``.

It runs the whole store for half a minute, with some load, and needs Chromium.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from kvworker import KeyValueStore, Settings
from kvworker.errors import KVStoreError
from kvworker.ops.local.stack import running_stack
from tests.support.chromium import CHROMIUM, MISSING, running_chromium
from tests.support.documents import ROOT

PICTURES: Final = ROOT / "docs" / "images"
_LOAD_SECONDS: Final = 30
_WIDE: Final = {"width": 1000, "height": 900}
_NARROW: Final = {"width": 400, "height": 900}
#: File, page, and how the browser looks at it.
_VIEWS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("dashboard-light.png", "Overview", {"viewport": _WIDE, "color_scheme": "light"}),
    ("dashboard-dark.png", "Overview", {"viewport": _WIDE, "color_scheme": "dark"}),
    ("dashboard-narrow.png", "Namespaces", {"viewport": _NARROW, "color_scheme": "light"}),
)


def main() -> None:
    """Take the pictures."""
    if CHROMIUM is None:
        raise SystemExit(MISSING)
    PICTURES.mkdir(exist_ok=True)
    settings = Settings.from_mapping({}, environ={})
    with (
        tempfile.TemporaryDirectory() as state,
        running_stack(Path(state), postgres=True, settings=settings, dashboard=True) as stack,
        KeyValueStore(stack.settings) as store,
        _load(store),
        running_chromium() as browser,
    ):
        time.sleep(_LOAD_SECONDS)
        for file, name, options in _VIEWS:
            page = browser.new_context(**options).new_page()
            page.goto(str(stack.dashboard_url))
            page.get_by_role("heading", name="Overview").wait_for()
            page.get_by_role("link", name=name).click()
            page.get_by_role("heading", name=name).wait_for()
            page.screenshot(path=PICTURES / file)


@contextmanager
def _load(store: KeyValueStore) -> Iterator[None]:
    stopping = threading.Event()

    def work() -> None:
        """Call the store until the pictures are taken; some calls exceed a quota."""
        number = 0
        while not stopping.wait(0.004):
            number += 1
            with suppress(KVStoreError):
                store.set(f"team/{number % 23}", f"run-{number % 97}", "x" * (number % 23) * 500, ttl_seconds=900)
            if number % 200 == 0:
                with suppress(KVStoreError):
                    store.set("team/full", "report", "x" * 2_000_000)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


if __name__ == "__main__":
    main()
