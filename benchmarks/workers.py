"""The workers under measurement: kvworker's, and the stock Celery application's as the floor."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from celery.exceptions import TimeoutError as CeleryTimeoutError

from benchmarks import noop
from kvworker import KeyValueStore, Settings
from kvworker.errors import KVStoreError
from kvworker.model import JSONValue
from kvworker.ops.local.child_processes import Child, ChildSpec, running_child

POOLS = (("prefork", 2), ("threads", 8))
NAMESPACE = "bench"
KEYS = 64
READY_SECONDS = 30
VALUE: JSONValue = {"step": 7, "tool": "search", "state": "x" * 60}


@contextmanager
def benched_store(postgres_url: str, valkey_url: str, **facade: int) -> Iterator[KeyValueStore]:
    """Open a store on these servers. The stock application uses the same Valkey."""
    noop.app.conf.update(broker_url=valkey_url, result_backend=valkey_url)
    with KeyValueStore(_settings(postgres_url, valkey_url, facade)) as store:
        yield store


@contextmanager
def running_workers(store: KeyValueStore, pool: str, concurrency: int) -> Iterator[tuple[Child, Child]]:
    """Start the stock application's worker and kvworker's, and wait until both answer."""
    with (
        tempfile.TemporaryDirectory(prefix="kvworker-bench-") as directory,
        _started_workers(Path(directory), store, pool, concurrency) as workers,
    ):
        yield workers


def _settings(postgres_url: str, valkey_url: str, facade: Mapping[str, int]) -> Settings:
    adapter = {"url": postgres_url, "reuse_conversation_store": False, "namespace_quota_bytes": 2**30}
    return Settings.from_mapping(
        {
            "tools": {"kv_store": {"default_adapter": "postgres", "adapters": {"postgres": adapter}}},
            "queue": {"broker_url": valkey_url},
            "facade": dict(facade),
        }
    )


@contextmanager
def _started_workers(
    directory: Path, store: KeyValueStore, pool: str, concurrency: int
) -> Iterator[tuple[Child, Child]]:
    config = directory / "kvworker.yaml"
    config.write_text(yaml.safe_dump(store.settings.to_mapping()))
    url = store.settings.queue.broker_url
    options = ["worker", "--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    stock = ["-A", "benchmarks.noop", "-b", url, "--result-backend", url, *options, "-n", f"noop-{pool}@%h"]
    ours = ["-A", "tasks", *options, "-n", f"kvworker-{pool}@%h"]
    environ = {**os.environ, "KVWORKER_CONFIG": str(config)}
    with (
        running_child(_worker("noop", stock, directory, os.environ)) as noop_worker,
        running_child(_worker("kvworker", ours, directory, environ)) as kv_worker,
    ):
        noop_worker.wait_until(_noop_answers, READY_SECONDS)
        kv_worker.wait_until(lambda: store_answers(store), READY_SECONDS)
        yield noop_worker, kv_worker


def _worker(name: str, arguments: list[str], directory: Path, environ: Mapping[str, str]) -> ChildSpec:
    command = (sys.executable, "-m", "celery", *arguments)
    return ChildSpec(name, command, directory / f"{name}.log", cwd=Path.cwd(), env=environ, stop_seconds=20)


def _noop_answers() -> bool:
    try:
        noop.noop.delay().get(timeout=1)
    except CeleryTimeoutError:
        return False
    return True


def store_answers(store: KeyValueStore) -> bool:
    """Write the entries that the calls use, and return whether a worker did so."""
    try:
        for number in range(KEYS):
            store.set(NAMESPACE, f"key-{number}", VALUE, timeout=1)
    except KVStoreError:
        return False
    return True
