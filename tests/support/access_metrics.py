"""Reads the number of failed attempts from a server's metrics."""

from __future__ import annotations

import re
from urllib.request import urlopen


def access_failures(port: int, server: str) -> float:
    """Return the attempts to open a server that have failed, by its metrics."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
    found = re.search(rf'^kvworker_access_failures_total{{server="{server}"}} (.+)$', text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])
