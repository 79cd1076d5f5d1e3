"""The whole store on one machine: embedded servers, a worker and a beat, as children of this process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import URL

from kvworker.client.sync import KeyValueStore
from kvworker.errors import KVStoreError, OperationTimeoutError, PolicyDeniedError
from kvworker.ops.celery_processes import celery_command, celery_environment
from kvworker.ops.database import migrate_store
from kvworker.ops.local.child_processes import Child, ChildError, ChildSpec, running_child
from kvworker.ops.local.servers import embedded_postgres, embedded_valkey
from kvworker.settings import Settings

CONFIG_NAME = "kvworker.yaml"

_READY_SECONDS = 60.0
_WATCH_SECONDS = 0.2
# What a worker needs beyond its running tasks to close its connections.
_STOP_MARGIN_SECONDS = 25.0


@dataclass(frozen=True)
class Stack:
    """A running stack. ``config`` is the file that other processes reach it with."""

    state: Path
    config: Path
    settings: Settings
    children: tuple[Child, ...]

    def check(self) -> None:
        """See that all of it still runs.

        Raises:
            ChildError: a child process ended on its own.
        """
        for child in self.children:
            if not child.is_running:
                raise child.died()


@contextmanager
def running_stack(
    state: Path, *, postgres: bool = False, concurrency: int = 4, settings: Settings | None = None
) -> Iterator[Stack]:
    """Run the store in a directory, until the end of the context; it is ready when this yields.

    ``settings`` are taken over except for broker and database. What the store holds, and what is queued,
    is there again at the next start in the same directory. ``concurrency`` is in worker threads.

    Raises:
        ConfigurationError: the ``embedded`` extra is not installed.
        ChildError: something did not start, or another stack runs in the directory.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = state.resolve()
    with ExitStack() as running:
        running.enter_context(_locked(state))
        servers = [running.enter_context(embedded_valkey(state))]
        if postgres:
            servers.append(running.enter_context(embedded_postgres(state)))
        database_url = servers[1].url if postgres else _sqlite_url(state / "kv.sqlite")
        config = _write_config(state, settings or Settings(), servers[0].url, database_url)
        made = Settings.load(config)
        migrate_store(made)
        # Left in reverse order: beat, worker, servers.
        worker = running.enter_context(running_child(_worker(state, config, made, concurrency)))
        beat = running.enter_context(running_child(_beat(state, config)))
        stack = Stack(state, config, made, (*(server.child for server in servers), worker, beat))
        _wait_until_it_answers(stack)
        yield stack


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    with (state / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            raise ChildError(
                f"another stack is running in {state}{f' (process {owner})' if owner else ''};"
                " stop it, or give another directory with --state"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
        lock.truncate(0)


def _sqlite_url(file: Path) -> str:
    # Its write-ahead log gets the same permissions.
    file.touch(mode=0o600)
    return URL.create("sqlite", database=str(file)).render_as_string()


def _write_config(state: Path, settings: Settings, broker_url: str, database_url: str) -> Path:
    """Write the file that other processes reach the stack with; it may hold what the base file held."""
    mapping = settings.to_mapping()
    adapter = "sqlite" if database_url.startswith("sqlite") else "postgres"
    block: dict[str, Any] = mapping["tools"]["kv_store"]["adapters"][adapter]
    block |= {"url": database_url, "reuse_conversation_store": False}
    mapping["tools"]["kv_store"] = {"default_adapter": adapter, "adapters": {adapter: block}}
    for persona in (mapping["policies"]["personas"] or {}).values():
        # There is this one database; what a provider names elsewhere is no business of a stack of its own.
        persona.pop("provider", None)
    mapping["queue"] |= {"broker_url": broker_url, "result_backend": broker_url}
    path = state / CONFIG_NAME
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600, exist_ok=False)
    with unfinished.open("w", encoding="utf-8") as file:
        file.write("# Written by `kvworker up` at each start: how other processes reach this stack.\n")
        yaml.safe_dump(mapping, file, sort_keys=False)
    unfinished.replace(path)
    return path


def _worker(state: Path, config: Path, settings: Settings, concurrency: int) -> ChildSpec:
    arguments = ("--pool", "threads", "--concurrency", str(concurrency), "--loglevel", "WARNING")
    return ChildSpec(
        "worker",
        celery_command("worker", arguments, quiet=True),
        state / "logs" / "worker.log",
        cwd=state,
        env=celery_environment(config),
        stop_seconds=settings.queue.soft_shutdown_seconds + _STOP_MARGIN_SECONDS,
    )


def _beat(state: Path, config: Path) -> ChildSpec:
    arguments = ("--schedule", str(state / "beat-schedule"), "--loglevel", "INFO")
    return ChildSpec(
        "beat",
        celery_command("beat", arguments, quiet=True),
        state / "logs" / "beat.log",
        cwd=state,
        env=celery_environment(config),
    )


def _wait_until_it_answers(stack: Stack) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS
    with KeyValueStore(stack.settings) as store:
        question = store.probe(_READY_SECONDS)
        while True:
            stack.check()
            try:
                question.result(timeout=_WATCH_SECONDS)
            except PolicyDeniedError:
                return
            except KVStoreError as error:
                if time.monotonic() > give_up_at:
                    raise ChildError(f"the stack did not answer within {_READY_SECONDS:g} s: {error}") from error
                # While the answer is merely not there yet, the question stands.
                if not isinstance(error, OperationTimeoutError):
                    question = store.probe(_READY_SECONDS)
            else:
                return
