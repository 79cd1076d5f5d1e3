"""A headless Chromium, which Debian's package brings, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
MISSING = "chromium is not installed (Debian's package has this name)"


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run the browser. Its sandbox needs rights that a container may not have."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()
