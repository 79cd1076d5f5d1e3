"""A signing key is changed while workers and callers run, as the page on personas describes it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvworker import KeyValueStore, PolicyDeniedError, Settings
from tests.acceptance.conftest import ROOT
from tests.support.callers import Caller
from tests.support.processes import WorkerNode, running

OLD, NEW = "the-old-key-of-this-test", "the-new-key-of-this-test"


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=2"]


def test_a_key_is_changed_without_a_refused_call(
    tmp_path: Path, settings: Settings, worker_arguments: list[str]
) -> None:
    def with_keys(signing_key: str, *previous: str) -> dict[str, Any]:
        policies = {"signing_key": signing_key, "previous_signing_keys": list(previous)}
        return {**settings.to_mapping(), "policies": policies}

    def worker(name: str, configuration: dict[str, Any]) -> WorkerNode:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(configuration))
        return WorkerNode(tmp_path, {"KVWORKER_CONFIG": str(file), "PYTHONPATH": str(ROOT)}, worker_arguments, name)

    caller = Caller(Settings.from_mapping(with_keys(OLD)))
    with ExitStack() as workers:
        old = workers.enter_context(running(worker("old", with_keys(OLD))))
        with caller.running():
            both = workers.enter_context(running(worker("both", with_keys(NEW, OLD))))
            caller.makes_progress()
            assert old.stop() == 0
            caller.makes_progress()
            caller.settings = Settings.from_mapping(with_keys(NEW))
            caller.makes_progress()
            workers.enter_context(running(worker("new", with_keys(NEW))))
            caller.makes_progress()
            assert both.stop() == 0
            caller.makes_progress()
        assert caller.error is None
        with KeyValueStore(Settings.from_mapping(with_keys(NEW))) as store:
            assert store.get("n", "calls", timeout=60).value == caller.answered
        with KeyValueStore(Settings.from_mapping(with_keys(OLD))) as store, pytest.raises(PolicyDeniedError):
            store.get("n", "calls", timeout=60)
