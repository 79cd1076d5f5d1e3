"""An upgrade from release 0.1.0 under load, in the order of docs/how-to/deployment.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import kvworker
from kvworker import KeyValueStore
from tests.acceptance.conftest import ROOT, write_config
from tests.support.processes import ProcessNode, running, wait_until
from tests.support.upgrade_load import COUNTERS, NAMESPACE

RELEASE = Path(__file__).parent / "releases" / "kvworker-0.1.0-py3-none-any.whl"
LOAD = ROOT / "tests" / "support" / "upgrade_load.py"
#: Enough operations for each combination of a caller and a worker to apply and to replay many.
OPERATIONS = 60

StartProcess: TypeAlias = Callable[..., ProcessNode]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 0.1.0, installed from its wheel over the dependencies of this one."""
    target = tmp_path_factory.mktemp("release")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(RELEASE)], check=True)
    return target


@pytest.fixture
def empty_config(tmp_path: Path, empty_postgres_url: str, broker_url: str) -> Path:
    """The configuration of a store without a schema."""
    return write_config(tmp_path, empty_postgres_url, broker_url, broker_url, {})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProcess]:
    """Start a program with the package at a path."""
    with ExitStack() as nodes:

        def start_process(name: str, path: Path, *command: str) -> ProcessNode:
            (directory := tmp_path / name).mkdir()
            python = [sys.executable, "-P", *command]
            node = ProcessNode(name, python, directory=directory, environ={"PYTHONPATH": str(path)})
            return nodes.enter_context(running(node))

        yield start_process


def kvworker_at(path: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "kvworker", *arguments]
    done = subprocess.run(command, env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=True)
    return done.stdout


def told_by(caller: ProcessNode) -> list[dict[str, Any]]:
    # The last line may be half written.
    lines = caller.logs().rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines[1:]]


def has_told(caller: ProcessNode, count: int) -> bool:
    return len(told_by(caller)) >= count or caller.status == "exited"


def test_an_upgrade_of_schema_workers_and_callers_refuses_and_loses_nothing(
    empty_config: Path, release: Path, start: StartProcess, tmp_path: Path
) -> None:
    config, here = str(empty_config), ROOT
    stops = {name: tmp_path / f"stop-{name}" for name in ("old", "new")}

    def start_worker(name: str, path: Path, *arguments: str) -> ProcessNode:
        command = ["-m", "kvworker", "worker", "--config", config, "--", "-n", f"{name}@%h", "-l", "INFO", *arguments]
        worker = start(f"worker-{name}", path, *command)
        wait_until(lambda: "ready." in worker.logs() or worker.status == "exited", what=f"the {name} worker")
        return worker

    def start_caller(name: str, path: Path) -> ProcessNode:
        return start(f"caller-{name}", path, str(LOAD), config, name, str(stops[name]))

    def work_on(*callers: ProcessNode) -> None:
        """Wait until each of the callers has made some more calls."""
        wanted = {caller: len(told_by(caller)) + OPERATIONS for caller in callers}
        for caller, count in wanted.items():
            wait_until(partial(has_told, caller, count), what=caller.name)
            assert caller.status == "running", caller.logs()

    assert "version 0004" in kvworker_at(release, "migrate", "--config", config)
    old_worker = start_worker("old", release, "--pool=threads", "-c", "2")
    old_caller = start_caller("old", release)
    work_on(old_caller)
    assert '"version": "0.1.0"' in old_caller.logs()

    assert "expanded to 0005" in kvworker_at(here, "migrate", "--config", config)
    work_on(old_caller)

    new_worker = start_worker("new", here, "--pool=prefork", "-c", "2")
    new_caller = start_caller("new", here)
    work_on(old_caller, new_caller)
    assert old_worker.stop() == 0
    work_on(old_caller, new_caller)

    stops["old"].touch()
    wait_until(lambda: old_caller.status == "exited", what="the old caller's end")
    assert "version 0005" in kvworker_at(here, "migrate", "--finish", "--config", config)
    work_on(new_caller)
    stops["new"].touch()
    wait_until(lambda: new_caller.status == "exited", what="the new caller's end")

    assert (old_caller.exit_code, new_caller.exit_code) == (0, 0), old_caller.logs() + new_caller.logs()
    assert f'"version": "{kvworker.__version__}"' in new_caller.logs()
    assert new_worker.status == "running"
    check_outcome([*told_by(old_caller), *told_by(new_caller)], config)


def check_outcome(told: list[dict[str, Any]], config: str) -> None:
    """Each operation was applied once, and a repetition gets the same answer."""
    assert all(operation["same"] for operation in told)
    with KeyValueStore.from_config(config) as store:
        for number in range(COUNTERS):
            key = f"counter-{number}"
            values = sorted(operation["value"] for operation in told if operation["key"] == key)
            assert values == list(range(1, len(values) + 1))
            assert store.get(NAMESPACE, key).value == len(values)
        assert store.get(NAMESPACE, "unnamed").value == len(told)
        # The first ones were applied by a worker of 0.1.0.
        for operation in told[:20]:
            again = store.increment(NAMESPACE, operation["key"], idempotency_key=operation["id"])
            assert (again.value, again.replayed) == (operation["value"], True)
