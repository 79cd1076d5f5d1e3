"""A PgBouncer in transaction mode before a test's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from tests.support.processes import wait_until
from tests.support.servers import PostgresServer, free_port

BINARY = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


@contextmanager
def running_pgbouncer(server: PostgresServer) -> Iterator[int]:
    """Run a PgBouncer that knows all databases of the server, and yield its port."""
    assert BINARY is not None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kvworker-pgbouncer-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        file, log = directory / "pgbouncer.ini", directory / "log"
        file.write_text(
            f"[databases]\n* = host={server.socket_directory} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\n"
        )
        # PgBouncer refuses to run as root.
        user = ["--user", server.system_user] if server.system_user else []
        with log.open("w") as output:
            process = subprocess.Popen([BINARY, *user, str(file)], stdout=output, stderr=output)
        try:
            wait_until(lambda: "process up" in log.read_text(), what="PgBouncer's start")
            yield port
        finally:
            process.kill()
            process.wait(timeout=60)


def pgbouncer_url(port: int, database: str, **query: str) -> str:
    """Return the URL of a database behind a PgBouncer."""
    url = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=port, database=database, query=query)
    return url.render_as_string()
