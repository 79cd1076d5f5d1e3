"""The manifests without a cluster: their commands and probes run as processes, without a file system to write to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from redis import Redis
from redis.exceptions import NoPermissionError

from kvworker import KeyValueStore, Settings
from kvworker.access import TokenStore
from tests.support.containers import Container, stopping
from tests.support.documents import ROOT
from tests.support.manifests import find, pods
from tests.support.processes import wait_until
from tests.support.servers import free_port

KEY = "a-signing-key-of-this-test"


@pytest.fixture
def container(tmp_path: Path, empty_postgres_url: str, valkey_url: str) -> Callable[[str], Container]:
    """Make the container of a pod: with the mounted files, the environment and the writable directories that it has."""
    config = yaml.safe_load(find("ConfigMap", "kvworker")["data"]["kvworker.yaml"])
    config["maintenance"] = {"sweep_interval_seconds": 1, "sweep_budget_seconds": 1}
    (tmp_path / "kvworker.yaml").write_text(yaml.safe_dump(config))
    for name in ("kvworker", "kvworker-owner"):
        (tmp_path / name).mkdir()
        secrets = {"broker-url": valkey_url, "store-url": empty_postgres_url, "signing-key": KEY}
        for key, value in secrets.items():
            (tmp_path / name / key).write_text(value)
    (tmp_path / "kvworker-tokens").mkdir()
    TokenStore(tmp_path / "kvworker-tokens" / "tokens").create(
        "agent", persona=None, namespace_prefix="team", expires_at=None
    )
    ports = {port: str(free_port()) for port in ("9820", "9809", "8000", "9810", "9830", "9831")}

    def make(name: str) -> Container:
        pod = pods()[name]["containers"][0]
        home = tmp_path / name
        mounts = [mount["mountPath"] for mount in pod["volumeMounts"] if not mount.get("readOnly")]
        writable = {path: home / path.strip("/").replace("/", "-") for path in mounts}
        paths = {"/etc/kvworker": str(tmp_path), "/run/secrets": str(tmp_path), "0.0.0.0": "127.0.0.1", **ports}  # noqa: S104 - replaced
        paths |= {path: str(own) for path, own in writable.items()}
        environ = {"KVWORKER_CONFIG": "/etc/kvworker/kvworker.yaml", "TMPDIR": "/tmp"}  # noqa: S108 - replaced
        environ |= {variable["name"]: variable["value"] for variable in pod["env"]}
        return Container(
            home, environ, paths | {path: str(own) for path, own in writable.items()}, [*writable.values()]
        )

    return make


def start(container: Container, name: str) -> Any:
    return container.start(["kvworker", *pods()[name]["containers"][0]["args"]])


def probe(container: Container, name: str, kind: str) -> Callable[[], bool]:
    command = pods()[name]["containers"][0][f"{kind}Probe"]["exec"]["command"]
    return lambda: container.run(command).returncode == 0


def test_the_pods_run_serve_and_are_probed(container: Callable[[str], Container], tmp_path: Path) -> None:
    migrate, worker, beat, exporter = map(container, ("migrate", "worker", "beat", "metrics"))
    done = migrate.run(["kvworker", *pods()["migrate"]["containers"][0]["args"]])
    assert done.returncode == 0, done.stderr
    assert not probe(worker, "worker", "liveness")()
    with stopping(start(worker, "worker"), start(beat, "beat")), stopping(start(exporter, "metrics"), code=143):
        for name, one in (("worker", worker), ("beat", beat)):
            for kind in ("startup", "readiness", "liveness"):
                wait_until(probe(one, name, kind), what=f"the {kind} of {name}: {one.log()}")
        settings = Settings.load(tmp_path / "kvworker.yaml", environ=worker.environ)
        with KeyValueStore(settings) as store:
            store.set("n", "k", 1, timeout=30)
            assert store.get("n", "k").value == 1
        wait_until(lambda: "metrics at " in exporter.log(), what="the exporter")
        found = re.search(r"metrics at (\S+)", exporter.log())
        assert found is not None
        query = find("ScaledObject", "kvworker-worker")["spec"]["triggers"][1]["metadata"]["query"]
        with urlopen(found[1], timeout=60) as response:  # noqa: S310 - loopback
            metrics = response.read().decode()
        assert re.search(rf"^{re.escape(query[query.index('(') + 1 : -1])} \d", metrics, re.MULTILINE), metrics


@pytest.mark.parametrize("name", ["mcp", "dashboard"])
def test_a_server_over_http_is_probed_without_a_token_and_demands_one(
    container: Callable[[str], Container], name: str
) -> None:
    migrate, server = container("migrate"), container(name)
    assert migrate.run(["kvworker", *pods()["migrate"]["containers"][0]["args"]]).returncode == 0
    with stopping(start(server, name)):
        wait_until(lambda: " at http" in server.log(), what=f"the address of {name}")
        found = re.search(r" at http://([\d.:]+)/", server.log())
        assert found is not None
        pod = pods()[name]["containers"][0]
        for kind in ("startup", "readiness", "liveness"):
            # The kubelet names the address of the pod as the host.
            probe_headers = {"Host": f"10.1.2.3:{pod['ports'][0]['containerPort']}"}
            path = pod[f"{kind}Probe"]["httpGet"]["path"]
            with urlopen(Request(f"http://{found[1]}{path}", headers=probe_headers), timeout=60) as response:
                assert response.status == 200
        host = {"Host": f"kvworker-{name}:{find('Service', f'kvworker-{name}')['spec']['ports'][0]['port']}"}
        page = "mcp" if name == "mcp" else "namespaces"
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(f"http://{found[1]}/{page}", headers=host), timeout=60)
        refused.value.close()
        assert refused.value.code == 401


def test_kedas_login_reads_the_length_of_the_queue_and_nothing_else(valkey_url: str) -> None:
    text = (ROOT / "deploy/kubernetes/keda/secrets.yaml.example").read_text()
    (rule,) = re.findall(r"ACL SETUSER (keda .+)", text)
    (depth, _) = find("ScaledObject", "kvworker-worker")["spec"]["triggers"]
    queue = depth["metadata"]["listName"]
    # KEDA sends this script, which asks for the type of the key first.
    script = "redis.call('type', KEYS[1]) return redis.call('llen', KEYS[1])"
    with Redis.from_url(valkey_url) as admin:
        admin.lpush(queue, "a", "b")
        admin.execute_command("ACL", "SETUSER", *rule.split())
        try:
            with Redis.from_url(valkey_url, username="keda", password="PASSWORD") as keda:  # noqa: S106 - the example's
                assert keda.eval(script, 1, queue) == 2
                with pytest.raises(NoPermissionError):
                    keda.eval(script, 1, "another")
                with pytest.raises(NoPermissionError):
                    keda.lpop(queue)
        finally:
            admin.execute_command("ACL", "DELUSER", "keda")
