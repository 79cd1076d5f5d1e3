"""The stand of a scenario: a database, a Valkey, workers and beats, all real, all in one directory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from sqlalchemy import create_engine, make_url

from kvworker import KeyValueStore, Settings
from kvworker.adapters.sql.migrations import migrate
from tests.chaos.database import Database
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until
from tests.support.servers import PostgresServer, running_postgres

ROOT = Path(__file__).resolve().parents[2]
VISIBILITY_TIMEOUT_SECONDS = 5
POSTGRES_CONNECTIONS = 60
PREFORK = ("--pool=prefork", "--concurrency=2")
THREADS = ("--pool=threads", "--concurrency=3")

_DRAIN_SECONDS = 30.0
_FINISHED = re.compile(r"Task kvworker\.\w+\[([^\]]+)\] (?:succeeded|raised)")


@dataclass(frozen=True)
class Needs:
    """What a scenario stands on. Scenarios that need the same may share it."""

    database: str = "postgres"
    workers: tuple[tuple[str, ...], ...] = (PREFORK, THREADS)
    beats: int = 0
    #: By how much the clock of the last worker is off.
    clock_off_seconds: int = 0
    #: PostgreSQL's data are on a file system of so many MB.
    disk_mb: int = 0

    @property
    def lacking(self) -> str:
        """Why there cannot be such a stand here; "" if there can."""
        return "only root can mount a small file system" if self.disk_mb and os.geteuid() != 0 else ""


def _configuration(needs: Needs, database_url: str, valkey_url: str) -> dict[str, Any]:
    bounds = {"statement_timeout_seconds": 3} if needs.database == "postgres" else {"busy_timeout_seconds": 2}
    # More beats than one are there to disturb each other: they do all they can.
    seconds = {"sweep": 1, "recompute": 1 if needs.beats > 1 else 3600, "prune": 1}
    maintenance: dict[str, Any] = {f"{task}_interval_seconds": value for task, value in seconds.items()}
    return {
        "tools": {
            "kv_store": {
                "default_adapter": needs.database,
                "adapters": {needs.database: {"url": database_url, **bounds}},
            }
        },
        "queue": {
            "broker_url": valkey_url,
            "visibility_timeout_seconds": VISIBILITY_TIMEOUT_SECONDS,
            "retry_seconds": 4,
            "soft_shutdown_seconds": 3,
            "connect_timeout_seconds": 1,
            "max_redeliveries": 20,
        },
        "facade": {"timeout_seconds": 3},
        "maintenance": {**maintenance, **{f"{task}_budget_seconds": 1 for task in seconds}},
    }


class Stand:
    """The running parts, and what faults do to them."""

    def __init__(self, directory: Path, needs: Needs, postgres: PostgresServer | None) -> None:
        self.directory = directory
        self.needs = needs
        self._server = postgres
        self.valkey = ValkeyNode(_made(directory / "valkey"))
        self.database_url = self._make_database()
        self.database = Database(self.database_url)
        self.config = directory / "kvworker.yaml"
        self.workers: list[WorkerNode] = []
        self.beats: list[ProcessNode] = []
        self._pids: dict[str, int] = {}
        self._old_logs: dict[str, int] = {}

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server."""
        assert self._server is not None, "this stand has no PostgreSQL"
        return self._server

    @property
    def disk(self) -> Path:
        """The small file system that PostgreSQL's data are on."""
        return disk_of(self.directory)

    @property
    def settings(self) -> Settings:
        """The configuration that all parts share."""
        return Settings.load(self.config)

    def start(self) -> None:
        """Start everything and wait until it works."""
        self.valkey.start()
        self.valkey.ready()
        configuration = _configuration(self.needs, self.database_url, self.valkey.url)
        self.config.write_text(yaml.safe_dump(configuration))
        self.workers = [
            self._worker(f"worker-{number}", arguments) for number, arguments in enumerate(self.needs.workers, start=1)
        ]
        if self.needs.clock_off_seconds:
            self.workers[-1] = self._worker("worker-off", self.needs.workers[-1], self._wrong_clock())
        self.beats = [self.beat(number) for number in range(self.needs.beats)]
        for node in (*self.workers, *self.beats):
            node.start()
        for worker in self.workers:
            assert worker.ready(), worker.logs()
        self.begin()

    def begin(self) -> None:
        """Take the workers as they are now for what must still run in the end, and their logs for what is old."""
        self._pids = {worker.name: worker.pid for worker in self.workers}
        self._old_logs = {worker.name: len(worker.logs()) for worker in self.workers}

    def ended_workers(self) -> list[str]:
        """Workers that ended, or have another process, without a fault having said so."""
        return [
            f"{worker.name} (process {self._pids[worker.name]}) ended without having been asked to"
            for worker in self.workers
            if worker.status != "running" or worker.pid != self._pids[worker.name]
        ]

    def restart_worker(self, worker: WorkerNode) -> None:
        """Start an ended worker again, and wait until it takes messages."""
        starts = worker.logs().count("ready.")
        worker.start()
        wait_until(
            lambda: worker.logs().count("ready.") > starts or worker.status == "exited",
            timeout_seconds=40,
            what=f"the restart of {worker.name}",
        )
        assert worker.status == "running", worker.logs()[-2000:]
        self._pids[worker.name] = worker.pid

    def beat(self, number: int) -> ProcessNode:
        """A beat, not started yet."""
        name = f"beat-{number}"
        schedule = str(self.directory / f"{name}-schedule")
        command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-l", "INFO", "-s", schedule, "--pidfile="]
        return ProcessNode(name, command, directory=self.directory, environ=self._environ())

    @contextmanager
    def store(self) -> Iterator[KeyValueStore]:
        """A facade of its own."""
        with KeyValueStore(self.settings) as store:
            yield store

    def administration(self) -> psycopg.Connection:
        """A connection to PostgreSQL that is none of the store's; each statement is a transaction."""
        host = make_url(self.database_url).query["host"]
        return psycopg.connect(host=str(host), user="postgres", dbname="postgres", autocommit=True)

    def heal(self) -> None:
        """Undo what a fault that failed has left behind."""
        for worker in self.workers:
            for process in (psutil.Process(worker.pid), *worker.children()) if worker.status == "running" else ():
                process.resume()
        if self.valkey.status == "exited":
            self.valkey.start()
        if self.needs.database == "postgres":
            self.revive_postgres()
        for node in (*self.workers, *self.beats):
            if node.status == "exited":
                node.start()

    def revive_postgres(self) -> None:
        """Wait until PostgreSQL works; if it has ended, start it."""

        def works() -> bool:
            if self.postgres.pid is None:
                self.postgres.start()
            try:
                self.administration().close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(works, timeout_seconds=40, what="PostgreSQL working again")

    def drained(self) -> list[str]:
        """Wait until no message is queued or being worked on; what is left in spite of that."""
        with self.valkey.client() as client:

            def left() -> int:
                return int(client.llen("kv")) + int(client.hlen("kvworker.unacked"))

            with contextlib.suppress(AssertionError):
                wait_until(lambda: left() == 0, timeout_seconds=_DRAIN_SECONDS)
                return []
            return [f"{left()} messages are still queued or not acknowledged after {_DRAIN_SECONDS:g} s"]

    def logs(self) -> str:
        """What the workers have logged since the scenario began."""
        return "\n".join(worker.logs()[self._old_logs[worker.name] :] for worker in self.workers)

    def executions(self) -> Mapping[str, int]:
        """How often each task was worked on to its end."""
        counts: dict[str, int] = {}
        for task_id in _FINISHED.findall(self.logs()):
            counts[task_id] = counts.get(task_id, 0) + 1
        return counts

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for node in (*self.beats, *self.workers, self.valkey):
            with contextlib.suppress(psutil.Error, OSError):
                node.teardown()

    def _make_database(self) -> str:
        if self.needs.database == "postgres":
            return self.postgres.url(self.postgres.create_database())
        url = f"sqlite:///{self.directory}/kv.sqlite"
        engine = create_engine(url)
        migrate(engine)
        engine.dispose()
        return url

    def _worker(self, name: str, arguments: tuple[str, ...], environ: Mapping[str, str] | None = None) -> WorkerNode:
        return WorkerNode(self.directory, {**self._environ(), **(environ or {})}, list(arguments), name=name)

    def _environ(self) -> dict[str, str]:
        return {"KVWORKER_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}

    def _wrong_clock(self) -> dict[str, str]:
        path = os.pathsep.join((str(Path(__file__).parent / "wrong_clock"), str(ROOT)))
        return {"PYTHONPATH": path, "CLOCK_OFF_SECONDS": str(self.needs.clock_off_seconds)}


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def disk_of(directory: Path) -> Path:
    """Where a stand in a directory has a file system of its own."""
    return directory / "disk"


@contextmanager
def standing(directory: Path, needs: Needs, postgres: PostgresServer) -> Iterator[Stand]:
    """A stand that works, and is gone afterwards but for its logs. ``postgres`` serves those that need it."""
    _made(directory)
    with _server_for(directory, needs, postgres) as server:
        stand = Stand(directory, needs, server)
        try:
            stand.start()
            yield stand
        finally:
            stand.close()
            shutil.rmtree(directory / "valkey", ignore_errors=True)


@contextmanager
def _server_for(directory: Path, needs: Needs, postgres: PostgresServer) -> Iterator[PostgresServer | None]:
    if needs.database != "postgres":
        yield None
    elif not needs.disk_mb:
        yield postgres
    else:
        with _small_disk(disk_of(directory), needs.disk_mb) as disk:
            server = PostgresServer(disk / "data", durable=True)
            try:
                server.create_template()
                yield server
            finally:
                shutil.copy(server.log, directory / "small-postgres.log")
                server.cleanup()


@contextmanager
def _small_disk(path: Path, size_mb: int) -> Iterator[Path]:
    """A file system of its own, which only root can make."""
    _made(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "kvworker-chaos", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def chaos_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that may be killed: it writes to disk before it acknowledges, and has few connections."""
    with running_postgres(durable=True) as server:
        server.execute(f"ALTER SYSTEM SET max_connections = {POSTGRES_CONNECTIONS}")
        server.stop()
        server.start()
        yield server
