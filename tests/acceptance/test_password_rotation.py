"""Passwords are changed while callers, workers and beat run, in the order of docs/how-to/secure.md.

Connections are ended after each step, so that all are made again with the passwords of that moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml
from psycopg import sql
from redis import Redis
from sqlalchemy import make_url

from kvworker import KeyValueStore, Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.queue_readiness import check_broker
from kvworker.ops.doctor import run_checks
from tests.acceptance.conftest import POOLS, ROOT
from tests.support.callers import Caller
from tests.support.processes import CeleryNode, ValkeyNode, WorkerNode, running, wait_until
from tests.support.roles import WorkerRole
from tests.support.sentinel import MASTER_NAME, PASSWORD, SENTINEL_PASSWORD, watched_servers
from tests.support.servers import PostgresServer

OLD, NEW = "the-old@password/1", "the-new:password,2"
USER = "rotated"
PERIODS = {
    "sweep_interval_seconds": 1,
    "sweep_budget_seconds": 1,
    "recompute_budget_seconds": 4,
    "prune_budget_seconds": 4,
}


class Files:
    """The files that hold the two URLs, and the environment that names them."""

    def __init__(self, directory: Path, database_url: str, broker_url: str) -> None:
        self._urls = {"database": make_url(database_url), "broker": make_url(broker_url).set(username=USER)}
        self._paths = {name: directory / f"{name}-url" for name in self._urls}
        config = directory / "kvworker.yaml"
        queue = {"visibility_timeout_seconds": 5, "retry_seconds": 4.0}
        config.write_text(yaml.safe_dump({"queue": queue, "maintenance": PERIODS}))
        self.environ = {
            "KVWORKER_CONFIG": str(config),
            "ATLAS_KV_STORE_URL_FILE": str(self._paths["database"]),
            "KVWORKER_BROKER_URL_FILE": str(self._paths["broker"]),
            "PYTHONPATH": str(ROOT),
        }

    def write(self, name: str, password: str) -> None:
        """Replace a file as Kubernetes does."""
        path = self._paths[name]
        unfinished = path.with_suffix(".part")
        unfinished.write_text(self._urls[name].set(password=password).render_as_string(hide_password=False))
        unfinished.replace(path)

    @property
    def settings(self) -> Settings:
        return Settings.load(self.environ["KVWORKER_CONFIG"], environ=self.environ)


class Database:
    """The server's side of a role's password."""

    def __init__(self, url: str, role: str) -> None:
        self._url = url.replace("+psycopg", "")
        self._role = role

    def set_password(self, password: str) -> None:
        self._execute("ALTER ROLE {role} PASSWORD {password}", password=password)

    def end_connections(self) -> None:
        self._execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {name}")

    def _execute(self, statement: str, password: str = "") -> None:
        names = {"role": sql.Identifier(self._role), "name": self._role, "password": password}
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(**names))


@pytest.fixture
def database(postgres_server: PostgresServer, postgres_url: str, role: WorkerRole) -> Database:
    postgres_server.require_password(role.name)
    return Database(postgres_url, role.name)


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Any]:
    client: Any
    with Redis.from_url(valkey_node.url) as client:
        client.execute_command("ACL", "SETUSER", USER, "on", "~*", "&*", "+@all", "-@dangerous", "+info", f">{OLD}")
        yield client


def test_passwords_are_changed_without_a_refused_call(
    tmp_path: Path, role: WorkerRole, database: Database, broker: Any, valkey_node: ValkeyNode
) -> None:
    files = Files(tmp_path, role.url, valkey_node.url)
    database.set_password(OLD)
    files.write("database", OLD)
    files.write("broker", OLD)
    environ: Mapping[str, str] = files.environ
    caller = Caller(files.settings)
    with ExitStack() as nodes:
        workers = [
            nodes.enter_context(running(WorkerNode(tmp_path, environ, pool, name=pool[0].partition("=")[2])))
            for pool in POOLS
        ]
        beat = nodes.enter_context(
            running(
                CeleryNode(
                    "beat", ["beat", "-l", "INFO", "-s", "schedule", "--pidfile="], directory=tmp_path, environ=environ
                )
            )
        )

        def goes_on() -> None:
            """Everything works with new connections: calls on both workers, and beat."""
            database.end_connections()
            broker.execute_command("CLIENT", "KILL", "USER", USER)
            sent = beat.logs().count("Sending due task")
            caller.makes_progress()
            wait_until(lambda: beat.logs().count("Sending due task") > sent, timeout_seconds=60, what="beat")

        with caller.running():
            goes_on()
            # The file first: until the server has the new password, the old one is used.
            files.write("database", NEW)
            goes_on()
            database.set_password(NEW)
            goes_on()
            # The server first: it knows both, until all have the new one.
            broker.execute_command("ACL", "SETUSER", USER, f">{NEW}")
            goes_on()
            files.write("broker", NEW)
            goes_on()
            broker.execute_command("ACL", "SETUSER", USER, f"<{OLD}")
            goes_on()
        assert caller.error is None
        with KeyValueStore(files.settings) as store:
            assert store.get("n", "calls", timeout=60).value == caller.answered
        served = [finding.detail for finding in run_checks(files.settings, ("worker",)) if finding.ok]
        for pool in ("prefork", "threads"):
            assert any(pool in detail and "it can serve" in detail for detail in served), served
        assert [worker.stop() for worker in workers] == [0, 0]
        beat.kill("SIGTERM")
        logs = "".join(node.logs() for node in (*workers, beat))
        for password in (OLD, NEW):
            assert password not in logs
            assert quote(password, safe="") not in logs


def test_the_passwords_of_a_primary_and_of_its_sentinels_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with watched_servers() as servers:
        file.write_text(servers.url())
        settings = Settings.from_mapping({}, environ={"KVWORKER_BROKER_URL_FILE": str(file)})
        app = make_celery(settings)
        check_broker(app, settings)
        assert app.backend.server_time() > 0
        file.write_text(servers.url(sentinel_password="changed").replace(f":{PASSWORD}@", ":changed@"))  # noqa: S106 - as above
        server: Any
        with servers.replica().client() as replica, servers.primary().client() as primary, servers.ask() as sentinel:
            for server in (replica, primary, sentinel):
                server.execute_command("ACL", "SETUSER", "default", ">changed")
            # Or else it would take the primary for dead.
            server.execute_command("SENTINEL", "SET", MASTER_NAME, "auth-pass", "changed")
            for server, old in ((primary, PASSWORD), (sentinel, SENTINEL_PASSWORD)):
                server.execute_command("ACL", "SETUSER", "default", f"<{old}")
                server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        check_broker(app, settings)
        assert app.backend.server_time() > 0
