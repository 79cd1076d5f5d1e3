"""Runs the whole store on one machine: embedded servers, a worker and a beat, as children of this process."""

from __future__ import annotations

import fcntl
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import URL

from kvworker.client.sync import KeyValueStore
from kvworker.errors import KVStoreError, OperationTimeoutError, PolicyDeniedError
from kvworker.ops.celery_processes import OTHER_STATE, celery_command, celery_environment
from kvworker.ops.local.child_processes import Child, ChildError, ChildSpec, running_child
from kvworker.ops.local.servers import embedded_postgres, embedded_valkey
from kvworker.ops.migration import migrate_store
from kvworker.settings import Settings
from kvworker.settings.environment import LOG_FORMAT_VARIABLE
from kvworker.settings.private_paths import private_directory, replace_private_file
from kvworker.settings.schema import SCHEMA_NAME, configuration_schema, schema_text

CONFIG_NAME = "kvworker.yaml"
#: The line that the dashboard prints once it listens.
_ANNOUNCED = re.compile(rb"dashboard at (http://\S+)")

_READY_SECONDS = 60.0
_WATCH_SECONDS = 0.2
# A stopping worker needs this time to close its connections, after its running tasks have ended.
_STOP_MARGIN_SECONDS = 25.0


@dataclass(frozen=True)
class Stack:
    """A running stack.

    Attributes:
        state: The directory that holds data, configuration and logs.
        config: The configuration file with which other processes reach the stack.
        settings: The settings that the stack runs with.
        children: The servers, the worker, the beat and the dashboard.
        dashboard_url: The address of the dashboard; None without one.
    """

    state: Path
    config: Path
    settings: Settings
    children: tuple[Child, ...]
    dashboard_url: str | None = None

    def check(self) -> None:
        """Check that every process still runs.

        Raises:
            ChildError: A child process ended on its own.
        """
        for child in self.children:
            if not child.is_running:
                raise child.died()


@contextmanager
def running_stack(
    state: Path,
    *,
    postgres: bool = False,
    concurrency: int = 4,
    settings: Settings | None = None,
    dashboard: bool = False,
) -> Iterator[Stack]:
    """Run the whole store until the context ends. The stack answers calls when the context is entered.

    Args:
        state: The directory for data, configuration and logs. The next start in the same directory finds the stored
            entries and the queued messages again.
        postgres: Use PostgreSQL instead of SQLite.
        concurrency: The number of worker threads.
        settings: Settings to run with; the stack replaces the broker and the database.
        dashboard: Serve the dashboard, on this machine alone and read-only. It needs its extra.

    Raises:
        ConfigurationError: The ``embedded`` extra is not installed, or others can write to the directory.
        ChildError: A process did not start, or another stack runs in the directory.
    """
    state = private_directory(state, instead=OTHER_STATE).resolve()
    with ExitStack() as running:
        running.enter_context(_locked(state))
        servers = [running.enter_context(embedded_valkey(state))]
        if postgres:
            servers.append(running.enter_context(embedded_postgres(state)))
        database_url = servers[1].url if postgres else _sqlite_url(state / "kv.sqlite")
        config = _write_config(state, settings or Settings(), servers[0].url, database_url)
        effective = Settings.load(config)
        migrate_store(effective)
        # The exit stack stops them in reverse order: beat, worker, servers.
        worker = running.enter_context(running_child(_worker(state, config, effective, concurrency)))
        beat = running.enter_context(running_child(_beat(state, config)))
        stack = Stack(state, config, effective, (*(server.child for server in servers), worker, beat))
        if dashboard:
            stack = running.enter_context(_with_dashboard(stack))
        _wait_until_ready(stack)
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
                " stop it, or name another directory with --state"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
        lock.truncate(0)


def _sqlite_url(file: Path) -> str:
    # SQLite gives its write-ahead log the same permissions as the database file.
    file.touch(mode=0o600)
    return URL.create("sqlite", database=str(file)).render_as_string()


def _write_config(state: Path, settings: Settings, broker_url: str, database_url: str) -> Path:
    """Write the configuration file with which other processes reach the stack.

    The file is private, because it may hold secrets of the settings that it is based on.
    """
    mapping = settings.to_mapping()
    adapter = "sqlite" if database_url.startswith("sqlite") else "postgres"
    block: dict[str, Any] = mapping["tools"]["kv_store"]["adapters"][adapter]
    block |= {"url": database_url, "reuse_conversation_store": False}
    mapping["tools"]["kv_store"] = {"default_adapter": adapter, "adapters": {adapter: block}}
    for persona in (mapping["policies"]["personas"] or {}).values():
        # The stack has only this one database, so it ignores the providers that personas name.
        persona.pop("provider", None)
    mapping["queue"] |= {"broker_url": broker_url, "result_backend": broker_url}
    (state / SCHEMA_NAME).write_text(schema_text(configuration_schema()), encoding="utf-8")
    path = state / CONFIG_NAME
    text = io.StringIO()
    text.write(f"# yaml-language-server: $schema={SCHEMA_NAME}\n")
    text.write("# `kvworker up` writes this file at each start. Other processes use it to reach the stack.\n")
    yaml.safe_dump(mapping, text, sort_keys=False)
    replace_private_file(path, text.getvalue())
    return path


def _worker(state: Path, config: Path, settings: Settings, concurrency: int) -> ChildSpec:
    arguments = ("--pool", "threads", "--concurrency", str(concurrency), "--loglevel", "WARNING")
    return ChildSpec(
        "worker",
        celery_command("worker", arguments, quiet=True),
        state / "logs" / "worker.log",
        cwd=state,
        env=_environment(config),
        stop_seconds=settings.queue.soft_shutdown_seconds + _STOP_MARGIN_SECONDS,
    )


def _beat(state: Path, config: Path) -> ChildSpec:
    arguments = ("--schedule", str(state / "beat-schedule"), "--loglevel", "INFO")
    return ChildSpec(
        "beat",
        celery_command("beat", arguments, quiet=True),
        state / "logs" / "beat.log",
        cwd=state,
        env=_environment(config),
    )


def _environment(config: Path) -> dict[str, str]:
    # The logs are files for people, and the stack itself reads them for warnings.
    return {**celery_environment(config), LOG_FORMAT_VARIABLE: "text"}


@contextmanager
def _with_dashboard(stack: Stack) -> Iterator[Stack]:
    """Run the dashboard on its usual port, or on a free one if another program has that."""
    log = stack.state / "logs" / "dashboard.log"
    earlier_bytes = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-P", "-m", "kvworker", "dashboard", "--any-port", "--config", str(stack.config)]
    spec = ChildSpec("dashboard", command, log, cwd=stack.state, env=_environment(stack.config))

    def address() -> str:
        """Return the address that the dashboard has announced; "" before that."""
        found = _ANNOUNCED.search(log.read_bytes()[earlier_bytes:])
        return found[1].decode() if found else ""

    with running_child(spec) as child:
        child.wait_until(lambda: bool(address()), _READY_SECONDS)
        yield replace(stack, children=(*stack.children, child), dashboard_url=address())


def _wait_until_ready(stack: Stack) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS
    with KeyValueStore(stack.settings) as store:
        probe = store.probe(_READY_SECONDS)
        while True:
            stack.check()
            try:
                probe.result(timeout=_WATCH_SECONDS)
            except PolicyDeniedError:
                # A worker refused the probe, so a worker runs.
                return
            except KVStoreError as error:
                if time.monotonic() > give_up_at:
                    raise ChildError(f"the stack did not answer within {_READY_SECONDS:g} s: {error}") from error
                # After a timeout the probe is still pending, so keep waiting for it.
                if not isinstance(error, OperationTimeoutError):
                    probe = store.probe(_READY_SECONDS)
            else:
                return
