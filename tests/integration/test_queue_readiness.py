"""Readiness of broker and results, as an HTTP route asks for it: often, from threads, and without a hang."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvworker import Settings
from kvworker.errors import StoreUnavailableError
from kvworker.messaging import queue_readiness
from kvworker.messaging.queue_readiness import QueueReadiness
from tests.support.processes import ValkeyNode, running, wait_until

PASSWORD = "s3cret-redis"  # noqa: S105 - the test's own


@pytest.fixture
def valkey_node(tmp_path: Path) -> Iterator[ValkeyNode]:
    with running(ValkeyNode(tmp_path)) as node:
        yield node


def settings_for(url: str) -> Settings:
    return Settings.from_mapping({"queue": {"broker_url": url, "connect_timeout_seconds": 0.5}})


def test_it_follows_the_broker_and_never_waits_for_a_frozen_one(
    valkey_node: ValkeyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_readiness, "KEPT_SECONDS", 0.0)
    readiness = QueueReadiness(settings_for(valkey_node.url))
    assert readiness.problem() == ""
    valkey_node.kill("SIGSTOP")
    assert "cannot be used" in readiness.problem()
    valkey_node.kill("SIGCONT")
    wait_until(lambda: not readiness.problem(), what="the broker")
    valkey_node.kill()
    problem = readiness.problem()
    assert problem.startswith(f"the broker {valkey_node.url} cannot be used: ")


def test_a_wrong_password_is_named_and_not_shown(valkey_node: ValkeyNode) -> None:
    with valkey_node.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">another", "~*", "&*", "+@all")
    url = valkey_node.url.replace("redis://", f"redis://app:{PASSWORD}@")
    problem = QueueReadiness(settings_for(url)).problem()
    assert "invalid username-password pair" in problem
    assert PASSWORD not in problem


def test_many_questions_are_one_check(valkey_url: str) -> None:
    checks: list[int] = []
    readiness = QueueReadiness(settings_for(valkey_url), lambda: checks.append(1))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: readiness.problem(), range(100)))
    assert answers == [""] * 100
    assert len(checks) == 1


def test_a_further_check_counts(valkey_url: str) -> None:
    def refuse() -> None:
        raise StoreUnavailableError("the database is away")

    assert QueueReadiness(settings_for(valkey_url), refuse).problem() == "the database is away"
