"""The cluster of a scenario: a real database, Valkey, workers and beats, in one directory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from sqlalchemy import create_engine, make_url

from kvworker import KeyValueStore, Settings
from kvworker.adapters.sql.migrations import migrate
from tests.chaos.database import Database
from tests.chaos.needs import Needs, disk_of, postgres_for
from tests.support.processes import CeleryNode, ProcessNode, ValkeyNode, WorkerNode, wait_until
from tests.support.replication import ReplicatedPostgres
from tests.support.roles import WorkerRole
from tests.support.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
VISIBILITY_TIMEOUT_SECONDS = 5

_DRAIN_SECONDS = 30.0
_FINISHED = re.compile(r"Task kvworker\.\w+\[([^\]]+)\] (?:succeeded|raised)")


def _configuration(needs: Needs, database_url: str, valkey_url: str) -> dict[str, Any]:
    bounds = {"statement_timeout_seconds": 3} if needs.database == "postgres" else {"busy_timeout_seconds": 2}
    # Several beats should disturb each other, so they send every task often.
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


class Cluster:
    """The running processes, and the actions that faults apply to them."""

    def __init__(self, directory: Path, needs: Needs, postgres: PostgresServer | ReplicatedPostgres | None) -> None:
        self.directory = directory
        self.needs = needs
        self._server = postgres
        self.valkey = ValkeyNode(_make_directory(directory / "valkey"))
        self.database_url = self._make_database()
        self.database = Database(self.database_url)
        self.config = directory / "kvworker.yaml"
        self.workers: list[WorkerNode] = []
        self.beats: list[ProcessNode] = []
        #: The last worker's role in the database, if it has its own.
        self.role: WorkerRole | None = None
        self._pids: dict[str, int] = {}
        self._old_logs: dict[str, int] = {}

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server."""
        assert isinstance(self._server, PostgresServer), "this cluster has no single PostgreSQL"
        return self._server

    @property
    def replicated_postgres(self) -> ReplicatedPostgres:
        """The PostgreSQL server and its standby."""
        assert isinstance(self._server, ReplicatedPostgres), "this cluster has no standby"
        return self._server

    @property
    def disk(self) -> Path:
        """The small file system that holds PostgreSQL's data."""
        return disk_of(self.directory)

    @property
    def settings(self) -> Settings:
        """The configuration that all processes share."""
        return Settings.load(self.config)

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.valkey.start()
        self.valkey.ready()
        configuration = _configuration(self.needs, self.database_url, self.valkey.url)
        self.config.write_text(yaml.safe_dump(configuration))
        self.workers = [
            self._worker(f"worker-{number}", arguments) for number, arguments in enumerate(self.needs.workers, start=1)
        ]
        if self.needs.own_role:
            self.role = WorkerRole(self.database_url)
            self.workers[-1] = self._worker("worker-role", self.needs.workers[-1], self._with_role(self.role))
        if self.needs.clock_off_seconds:
            self.workers[-1] = self._worker("worker-off", self.needs.workers[-1], self._wrong_clock())
        self.beats = [self.beat(number) for number in range(self.needs.beats)]
        for node in (*self.workers, *self.beats):
            node.start()
        for worker in self.workers:
            assert worker.ready(), worker.logs()
        self.mark_start()

    def mark_start(self) -> None:
        """Remember the workers' processes, which must still run in the end, and the length of their logs."""
        self._pids = {worker.name: worker.pid for worker in self.workers}
        self._old_logs = {worker.name: len(worker.logs()) for worker in self.workers}

    def unexpected_ends(self) -> list[str]:
        """Describe the workers that ended or restarted although no fault asked for it."""
        return [
            f"{worker.name} (process {self._pids[worker.name]}) ended although no fault stopped it"
            for worker in self.workers
            if worker.status != "running" or worker.pid != self._pids[worker.name]
        ]

    def restart_worker(self, worker: WorkerNode) -> None:
        """Start an ended worker again, and wait until it is ready."""
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
        """Make a beat that is not started yet."""
        name = f"beat-{number}"
        schedule = str(self.directory / f"{name}-schedule")
        arguments = ["beat", "-l", "INFO", "-s", schedule, "--pidfile="]
        return CeleryNode(name, arguments, directory=self.directory, environ=self._environ())

    @contextmanager
    def store(self) -> Iterator[KeyValueStore]:
        """Open a new facade."""
        with KeyValueStore(self.settings) as store:
            yield store

    def admin_connection(self) -> psycopg.Connection:
        """Open a superuser's connection to PostgreSQL in autocommit mode, apart from the store's connections."""
        host = make_url(self.database_url).query["host"]
        return psycopg.connect(host=str(host), user="postgres", dbname="postgres", autocommit=True)

    def heal(self) -> None:
        """Undo whatever a failed fault has left behind."""
        for worker in self.workers:
            for process in (psutil.Process(worker.pid), *worker.children()) if worker.status == "running" else ():
                process.resume()
        if self.valkey.status == "exited":
            self.valkey.start()
        if isinstance(self._server, PostgresServer):
            self.postgres.resume()
            self.revive_postgres()
        if self.role:
            self.role.admit()
        for node in (*self.workers, *self.beats):
            if node.status == "exited":
                node.start()

    def revive_postgres(self) -> None:
        """Wait until PostgreSQL answers, and start it if it has ended."""

        def works() -> bool:
            if self.postgres.pid is None:
                self.postgres.start()
            try:
                self.admin_connection().close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(works, timeout_seconds=40, what="PostgreSQL working again")

    def wait_until_drained(self) -> list[str]:
        """Wait until no message is queued or in progress, and describe the rest after a timeout."""
        with self.valkey.client() as client:

            def left() -> int:
                return int(client.llen("kv")) + int(client.hlen("kvworker.unacked"))

            with contextlib.suppress(AssertionError):
                wait_until(lambda: left() == 0, timeout_seconds=_DRAIN_SECONDS)
                return []
            return [f"{left()} messages are still queued or not acknowledged after {_DRAIN_SECONDS:g} s"]

    def logs(self) -> str:
        """The workers' log lines since the scenario began."""
        return "\n".join(worker.logs()[self._old_logs[worker.name] :] for worker in self.workers)

    def executions(self) -> Mapping[str, int]:
        """Count for each task how often a worker finished it."""
        counts: dict[str, int] = {}
        for task_id in _FINISHED.findall(self.logs()):
            counts[task_id] = counts.get(task_id, 0) + 1
        return counts

    def close(self) -> None:
        """Stop everything, whatever state it is in."""
        for node in (*self.beats, *self.workers, self.valkey):
            with contextlib.suppress(psutil.Error, OSError):
                node.teardown()
        if self.role:
            self.role.drop()

    def _make_database(self) -> str:
        if isinstance(self._server, PostgresServer):
            return self.postgres.url(self.postgres.create_database())
        url = self._server.url if self._server else f"sqlite:///{self.directory}/kv.sqlite"
        engine = create_engine(url)
        migrate(engine)
        engine.dispose()
        return url

    def _worker(self, name: str, arguments: tuple[str, ...], environ: Mapping[str, str] | None = None) -> WorkerNode:
        worker = WorkerNode(self.directory, {**self._environ(), **(environ or {})}, list(arguments), name=name)
        worker.can_fork &= not self.needs.own_memory
        return worker

    def _environ(self) -> dict[str, str]:
        return {"KVWORKER_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}

    def _with_role(self, role: WorkerRole) -> dict[str, str]:
        config = self.directory / "role.yaml"
        configuration = _configuration(self.needs, role.url, self.valkey.url)
        configuration["queue"]["retry_seconds"] = 1
        config.write_text(yaml.safe_dump(configuration))
        return {"KVWORKER_CONFIG": str(config)}

    def _wrong_clock(self) -> dict[str, str]:
        path = os.pathsep.join((str(Path(__file__).parent / "wrong_clock"), str(ROOT)))
        return {"PYTHONPATH": path, "CLOCK_OFF_SECONDS": str(self.needs.clock_off_seconds)}


def _make_directory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def running_cluster(directory: Path, needs: Needs, postgres: PostgresServer) -> Iterator[Cluster]:
    """Run a cluster, and remove its data but not its logs afterwards. ``postgres`` serves clusters that need one."""
    _make_directory(directory)
    with postgres_for(directory, needs, postgres) as server:
        cluster = Cluster(directory, needs, server)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
            shutil.rmtree(directory / "valkey", ignore_errors=True)
