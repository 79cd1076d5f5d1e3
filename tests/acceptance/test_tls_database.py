"""The database behind TLS and a password, with a real worker: valid access works, and errors show no secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from kvworker import KeyValueStore, Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.ops.doctor import run_checks
from tests.acceptance.conftest import ROOT
from tests.acceptance.test_timeouts import within
from tests.support.processes import WorkerNode, wait_until
from tests.support.servers import PostgresServer
from tests.support.tls import Authority, TlsProxy, make_authority, tls_before_postgres

ROLE, PASSWORD, WRONG = "kv_tls", "the-databases-password", "not-the-password"


@dataclass(frozen=True)
class Database:
    """A database that one role may use with its password, and the TLS proxy in front of its server."""

    name: str
    proxy: TlsProxy
    ours: Authority
    stranger: Authority

    def url(self, password: str = PASSWORD, *, host: str = "127.0.0.1", ca: Path | None = None) -> str:
        address = f"{host}:{self.proxy.port}/{self.name}"
        return (
            f"postgresql+psycopg://{ROLE}:{password}@{address}?sslmode=verify-full&sslrootcert={ca or self.ours.file}"
        )


@pytest.fixture(scope="module")
def password_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    postgres_server.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    postgres_server.require_password(ROLE)
    yield postgres_server
    postgres_server.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def database(password_server: PostgresServer, postgres_url: str, tmp_path: Path) -> Iterator[Database]:
    ours, stranger = make_authority(tmp_path, "ours"), make_authority(tmp_path, "stranger")
    with tls_before_postgres(ours.context, password_server.socket_directory) as proxy:
        yield Database(make_url(postgres_url).database or "", proxy, ours, stranger)


@pytest.fixture
def config_overrides(database: Database) -> dict[str, Any]:
    adapters = {"postgres": {"url": database.url()}}
    return {
        "tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}},
        "queue": {"remote_control": False},
    }


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=2"]


def test_everything_works_over_tls_with_a_password(
    database: Database, settings: Settings, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    large = "x" * 500_000
    assert store.set("n", "k", large).version
    assert store.get("n", "k").value == large
    assert all(finding.ok for finding in run_checks(settings))
    assert database.proxy.cut() >= 1
    assert store.increment("n", "count", timeout=20).value == 1
    assert make_celery(settings).control.ping(timeout=0.5) == []
    check_no_secret(worker_node.logs(), repr(settings))


REFUSALS = {
    "stranger": ("certificate verify failed", "sslrootcert"),
    "no authority": ("root certificate file", "sslrootcert"),
    "host": ('does not match host name "localhost"', "use the host name in the server's certificate"),
    "password": ("password authentication failed", "correct the user or the password"),
}


def refused_url(database: Database, case: str) -> str:
    return {
        "stranger": database.url(ca=database.stranger.file),
        "no authority": database.url(ca=Path("/no/such/file")),
        "host": database.url(host="localhost"),
        "password": database.url(WRONG),
    }[case]


@pytest.mark.parametrize("case", REFUSALS)
def test_the_doctor_reports_the_reason(database: Database, kv_config: Path, case: str) -> None:
    settings = settings_with(kv_config, refused_url(database, case))
    with within(1.0):
        (finding,) = run_checks(settings, ("database",))
    assert not finding.ok
    assert all(part in finding.detail for part in REFUSALS[case]), finding
    assert finding.fix == "do what the message says, in tools.kv_store.adapters.postgres or on the server"
    check_no_secret(repr(finding))


def test_a_worker_whose_credentials_are_refused_ends_with_one_line(
    database: Database, kv_config: Path, tmp_path: Path
) -> None:
    settings = settings_with(kv_config, database.url(WRONG))
    worker = WorkerNode(tmp_path, {"KVWORKER_CONFIG": str(kv_config), "PYTHONPATH": str(ROOT)}, ["--pool=solo"])
    worker.start()
    try:
        wait_until(lambda: worker.status == "exited", what="the worker's end")
        assert worker.exit_code == 1
        assert "this worker cannot serve: cannot log in to the database" in worker.logs()
        assert "correct the user or the password" in worker.logs()
        assert "Traceback" not in worker.logs()
        check_no_secret(worker.logs(), repr(settings))
    finally:
        worker.teardown()


def settings_with(kv_config: Path, url: str) -> Settings:
    data = yaml.safe_load(kv_config.read_text())
    data["tools"]["kv_store"]["adapters"]["postgres"]["url"] = url
    kv_config.write_text(yaml.safe_dump(data))
    return Settings.load(kv_config)


def check_no_secret(*texts: str) -> None:
    assert not [text for text in texts if PASSWORD in text or WRONG in text]
