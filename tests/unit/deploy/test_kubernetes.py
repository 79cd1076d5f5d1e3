"""The manifests are valid, give no right that is not needed, and agree with each other and with the settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sqlalchemy import make_url

from kvworker import Settings
from kvworker.settings.environment import FALLBACKS, SECRET_VARIABLES
from tests.support import keda
from tests.support.documents import ROOT
from tests.support.manifests import find, manifests, pods

#: The oldest release of Kubernetes that docs/how-to/kubernetes.md names, and the newest that the tool knows.
VERSIONS = ("1.33", "1.37")
SECRETS = {secret["metadata"]["name"]: secret["stringData"] for secret in manifests() if secret["kind"] == "Secret"}
CONFIG = find("ConfigMap", "kvworker")["data"]["kvworker.yaml"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_valid(version: str) -> None:
    for manifest in manifests():
        if manifest["apiVersion"].startswith("keda.sh/"):
            keda.validate(manifest)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    kubernetes_validate.validate(keda.autoscaler(find("ScaledObject", "kvworker-worker")), version, strict=True)


def test_the_validation_finds_a_misspelt_key() -> None:
    manifest = find("Deployment", "kvworker-worker")
    manifest["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="redinessProbe"):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def _misspell_a_field(spec: dict[str, Any]) -> None:
    spec["maxReplicas"] = spec.pop("maxReplicaCount")


def _misspell_metadata(spec: dict[str, Any]) -> None:
    spec["triggers"][0]["metadata"]["listlength"] = "5"


def _leave_out_the_threshold(spec: dict[str, Any]) -> None:
    del spec["triggers"][1]["metadata"]["threshold"]


def _give_a_number(spec: dict[str, Any]) -> None:
    spec["triggers"][0]["metadata"]["listLength"] = 100


@pytest.mark.parametrize(
    "spoil",
    [_misspell_a_field, _misspell_metadata, _leave_out_the_threshold, _give_a_number],
    ids=lambda it: it.__name__,
)
def test_the_validation_finds_what_keda_refuses_or_ignores(spoil: Callable[[dict[str, Any]], None]) -> None:
    manifest = find("ScaledObject", "kvworker-worker")
    spoil(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        keda.validate(manifest)


def test_no_pod_has_a_right_that_it_does_not_need() -> None:
    assert {*pods()} == {"migrate", "worker", "beat", "metrics", "mcp", "dashboard"}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False, name
        rights = pod["securityContext"]
        assert rights["runAsNonRoot"], name
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert f"USER {rights['runAsUser']}:{rights['runAsGroup']}" in (ROOT / "Dockerfile").read_text(), name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= {*container["resources"]["requests"]}, name
        assert "memory" in container["resources"]["limits"], name
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") or mount["mountPath"] in ("/tmp", "/var/lib/kvworker/beat"), name  # noqa: S108


def test_all_run_the_same_release() -> None:
    (image,) = {pod["containers"][0]["image"] for pod in pods().values()}
    (job,) = (one["metadata"]["name"] for one in manifests() if one["kind"] == "Job")
    assert job == f"kvworker-migrate-{image.partition(':')[2].replace('.', '-')}"


def test_every_mounted_object_and_every_secret_file_exists() -> None:
    # It holds the file that `kvworker tokens` writes, so no manifest makes it.
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    made = dict(re.findall(r"kubectl create secret generic (\S+) --from-file=(\w+)", page))
    secrets = {**SECRETS, **{name: {key: ""} for name, key in made.items()}}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        held: dict[str, str] = {}
        for mount in container["volumeMounts"]:
            volume = volumes.pop(mount["name"])
            if "configMap" in volume:
                assert volume["configMap"]["name"] == "kvworker", name
                assert mount["mountPath"] == "/etc/kvworker", name
            if "secret" in volume:
                keys = {*secrets[volume["secret"]["secretName"]]}
                chosen = {item["key"]: item["path"] for item in volume["secret"].get("items", ())}
                assert keys >= {*chosen}, name
                held |= {f"{mount['mountPath']}/{key}": chosen.get(key, key) for key in chosen or keys}
        assert not volumes, name
        for variable in container["env"]:
            assert variable["name"].removesuffix("_FILE") in SECRET_VARIABLES, name
            assert variable["value"] in held, name
        tokens = [word.removeprefix("--tokens=") for word in container["args"] if word.startswith("--tokens=")]
        assert {*tokens} <= {*held}, name


def test_what_other_machines_reach_demands_tokens_and_tells_whether_it_can_serve() -> None:
    for name in ("mcp", "dashboard"):
        (container,) = pods()[name]["containers"]
        host = find("Service", f"kvworker-{name}")["metadata"]["name"]
        assert {"--allow-remote", f"--allowed-host={host}"} <= {*container["args"]}
        assert any(word.startswith("--tokens=") for word in container["args"])
        # The alert KvworkerAccessFailures and Grafana's dashboard need them.
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == "metrics")
        assert f"--metrics-listen=0.0.0.0:{port}" in container["args"]
        annotations = find("Deployment", f"kvworker-{name}")["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)}
        paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
        assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    (secrets,) = (volume["secret"] for volume in pods()["mcp"]["volumes"] if volume["name"] == "secrets")
    assert "store-url" not in [item["key"] for item in secrets["items"]], "the MCP server needs no database"


def test_the_image_can_run_every_pod() -> None:
    (installed,) = re.findall(r"'\.\[(\S+)\]'", (ROOT / "Dockerfile").read_text())
    needed = {"mcp": "mcp", "dashboard": "dashboard", "metrics": "metrics", "worker": "metrics"}
    for name, pod in pods().items():
        command = pod["containers"][0]["args"][0]
        assert needed.get(command) in {None, *installed.split(",")}, name


def test_the_configuration_and_the_secrets_make_settings() -> None:
    keys = {"KVWORKER_BROKER_URL": "broker-url", "ATLAS_KV_STORE_URL": "store-url"}
    assert {*keys} <= {*FALLBACKS}
    environ = {name: SECRETS["kvworker"][key] for name, key in keys.items()}
    environ["KVWORKER_SIGNING_KEY"] = SECRETS["kvworker"]["signing-key"]
    settings = Settings.from_mapping(yaml.safe_load(CONFIG), environ=environ)
    assert settings.policies.signing_key is not None
    assert SECRETS["kvworker-owner"]["store-url"] != SECRETS["kvworker"]["store-url"]


def test_the_policy_lets_pass_what_the_pods_use() -> None:
    policy = find("NetworkPolicy", "kvworker")["spec"]
    ports = [port for pod in pods().values() for port in pod["containers"][0].get("ports", ())]
    for rule, name in zip(policy["ingress"], ("metrics", "http"), strict=True):
        opened = {port["containerPort"] for port in ports if port["name"] == name}
        assert {port["port"] for port in rule["ports"]} == opened
    names, servers = ([port["port"] for port in rule["ports"]] for rule in policy["egress"])
    assert {*names} == {53}
    urls = SECRETS["kvworker"]["broker-url"], SECRETS["kvworker"]["store-url"]
    assert {*servers} == {make_url(url).port for url in urls}
    for pod in (one["spec"]["template"] for one in manifests() if one["kind"] in ("Deployment", "Job")):
        assert pod["metadata"]["labels"].items() >= policy["podSelector"]["matchLabels"].items()


def test_a_worker_is_probed_stopped_and_replaced_with_care() -> None:
    deployment, worker = find("Deployment", "kvworker-worker")["spec"], pods()["worker"]
    settings = Settings.from_mapping({**yaml.safe_load(CONFIG), "tools": {}})
    budgets = [value for name, value in settings.maintenance if name.endswith("_budget_seconds")]
    assert worker["terminationGracePeriodSeconds"] > max(budgets) + settings.queue.soft_shutdown_seconds
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    for name in ("worker", "beat"):
        (container,) = pods()[name]["containers"]
        commands = {probe: container[probe]["exec"]["command"] for probe in container if probe.endswith("Probe")}
        assert commands == {
            "startupProbe": ["kvworker-health"],
            "livenessProbe": ["kvworker-health"],
            "readinessProbe": ["kvworker-health", "--ready"],
        }
    budget = find("PodDisruptionBudget", "kvworker-worker")["spec"]
    assert budget["selector"] == deployment["selector"]
    assert budget["minAvailable"] < deployment["replicas"]


def test_there_is_one_beat_and_never_two() -> None:
    beat = find("Deployment", "kvworker-beat")["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def _trigger(name: str) -> dict[str, Any]:
    (trigger,) = (one for one in find("ScaledObject", "kvworker-worker")["spec"]["triggers"] if one["name"] == name)
    found: dict[str, Any] = trigger
    return found


def test_keda_scales_the_workers_by_depth_and_age() -> None:
    spec = find("ScaledObject", "kvworker-worker")["spec"]
    workers = find("Deployment", spec["scaleTargetRef"]["name"])
    assert spec["minReplicaCount"] == workers["spec"]["replicas"]
    queue = Settings.from_mapping(yaml.safe_load(CONFIG), environ={"ATLAS_KV_STORE_URL": "postgresql://h/d"}).queue
    depth, age = _trigger("depth"), _trigger("age")
    broker = make_url(SECRETS["kvworker"]["broker-url"])
    assert depth["metadata"]["address"] == f"{broker.host}:{broker.port}"
    assert depth["metadata"]["databaseIndex"] == broker.database
    assert depth["metadata"]["listName"] == queue.queue_name
    login = find("TriggerAuthentication", depth["authenticationRef"]["name"])
    for reference in login["spec"]["secretTargetRef"]:
        assert reference["key"] in SECRETS[reference["name"]]
    metric, label = re.findall(r'\((\w+)\{queue="(.*)"\}\)', age["metadata"]["query"])[0]
    assert label == queue.queue_name
    assert f"| `{metric}`" in (ROOT / "docs" / "reference" / "metrics.md").read_text()
