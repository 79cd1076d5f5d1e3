"""Failed attempts as metrics. Acceptance tests scrape the servers that count them."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from kvworker.access import FailedAttempts
from kvworker.access.metrics import access_registry, serving_failures
from kvworker.errors import ConfigurationError
from tests.support.access_metrics import access_failures
from tests.support.documents import ROOT
from tests.support.servers import free_port


def test_failures_are_counted_until_now() -> None:
    failures, port = FailedAttempts("the door"), free_port()
    with serving_failures(str(port), "door", failures):
        assert access_failures(port, "door") == 0
        for address in ("192.0.2.1", "192.0.2.2", None):
            asyncio.run(failures.slow_down(address))
        assert access_failures(port, "door") == 3
        with pytest.raises(ConfigurationError, match="cannot listen"), serving_failures(str(port), "door", failures):
            pass


def test_without_an_address_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with serving_failures(None, "door", FailedAttempts("the door")):
        pass
    with (
        pytest.raises(ConfigurationError, match="--metrics-listen needs the extra `metrics`"),
        serving_failures("0", "door", FailedAttempts("the door")),
    ):
        pass


def test_the_reference_lists_every_metric() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    part = text.partition("## Of the MCP server and the dashboard")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)_total` \| counter \| `(\w+)` \| (.*) \|$", part, re.MULTILINE)
    families = access_registry("door", FailedAttempts("the door")).collect()
    described = [
        (family.name, "server", family.documentation) for family in families if family.name.startswith("kvworker_")
    ]
    assert listed == described
