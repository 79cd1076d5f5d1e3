"""``stats`` while the broker is away still shows the store."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.servers import free_port
from tests.unit.cli.conftest import Kvworker


@pytest.fixture
def brokerless(kvworker: Kvworker, tmp_path: Path) -> Kvworker:
    """Runs commands with a broker that is away."""
    file = tmp_path / "kvworker.yaml"
    data = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**data, "queue": {"broker_url": f"redis://:secret@127.0.0.1:{free_port()}/0"}}))
    return kvworker


def test_the_store_is_shown_without_a_broker(brokerless: Kvworker) -> None:
    brokerless("set", "n", "k", '"[bold]12"')
    brokerless("set", "\x1b[31m", "k", "1")
    ran = brokerless("stats", "--top", "2")
    assert ran.code == 1
    problems = ran.out.splitlines()[1:3]
    assert [line.partition(":")[0] for line in problems] == ["queues", "workers"]
    for text in ("'\\x1b[31m'", "2 entries, 2 namespaces", "0 expired and not swept", "size: database"):
        assert text in ran.out
    assert "secret" not in ran.out + ran.err
    shown = brokerless("stats", "--json", "--top", "1")
    assert (shown.code, shown.err) == (1, "")
    assert '"queues": null, "workers": null' in shown.out


def test_an_interval_that_is_too_short_is_wrong_usage(brokerless: Kvworker) -> None:
    ran = brokerless("stats", "--watch", "--interval", "0")
    assert (ran.code, ran.out) == (2, "")
    assert "--interval is at least 0.1" in ran.err
