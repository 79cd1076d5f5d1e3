"""The needs of a scenario, and the PostgreSQL servers that meet them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.replication import ReplicatedPostgres, replicated_postgres
from tests.support.servers import PostgresServer, running_postgres

PREFORK = ("--pool=prefork", "--concurrency=2")
THREADS = ("--pool=threads", "--concurrency=3")
POSTGRES_CONNECTIONS = 60


@dataclass(frozen=True)
class Needs:
    """The cluster that a scenario needs. Scenarios with the same needs can share one."""

    database: str = "postgres"
    workers: tuple[tuple[str, ...], ...] = (PREFORK, THREADS)
    beats: int = 0
    #: The error of the last worker's clock.
    clock_off_seconds: int = 0
    #: True if the last worker has its own role in the database, which can be locked out.
    own_role: bool = False
    #: The size of PostgreSQL's file system; 0 for the normal one.
    disk_mb: int = 0
    #: True if the workers' memory is measured. A forked worker takes over its parent's memory, page by page.
    own_memory: bool = False
    #: True if PostgreSQL has a synchronous standby.
    has_standby: bool = False

    @property
    def unmet_need(self) -> str:
        """The reason why this machine cannot provide the cluster, or ""."""
        return "only root can mount a small file system" if self.disk_mb and os.geteuid() != 0 else ""


@contextmanager
def chaos_postgres() -> Iterator[PostgresServer]:
    """Run a PostgreSQL that can be killed: it flushes to disk before it acknowledges, and has few connections."""
    with running_postgres(durable=True) as server:
        server.execute(f"ALTER SYSTEM SET max_connections = {POSTGRES_CONNECTIONS}")
        server.stop()
        server.start()
        yield server


@contextmanager
def postgres_for(
    directory: Path, needs: Needs, postgres: PostgresServer
) -> Iterator[PostgresServer | ReplicatedPostgres | None]:
    """Choose or start the PostgreSQL that a cluster needs; None if it uses SQLite."""
    if needs.database != "postgres":
        yield None
    elif needs.has_standby:
        with replicated_postgres() as servers:
            yield servers
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


def disk_of(directory: Path) -> Path:
    """Where a cluster in this directory mounts its small file system."""
    return directory / "disk"


@contextmanager
def _small_disk(path: Path, size_mb: int) -> Iterator[Path]:
    """Mount a small file system, which only root can do."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "kvworker-chaos", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
