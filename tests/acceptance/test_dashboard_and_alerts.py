"""The Grafana dashboard and the alert rules in ``deploy/`` name only metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from kvworker import KeyValueStore, Settings
from kvworker.access import FailedAttempts
from kvworker.access.metrics import access_registry
from kvworker.ops.metrics import CallMetrics
from tests.support.documents import read_blocks
from tests.support.processes import ProcessNode, WorkerNode, running, wait_until
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/kvworker.json"
RULES = ROOT / "deploy/prometheus/kvworker.rules.yml"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of Debian's prometheus, is not installed"
)
#: The labels that Prometheus adds to each scraped series.
TARGET_LABELS = frozenset({"job", "instance"})
_SUFFIXES: Mapping[str, tuple[str, ...]] = {"histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture
def kv_config(kv_config: Path) -> Path:
    """The configuration, with a quota of the whole store, since a metric is about it."""
    data = yaml.safe_load(kv_config.read_text())
    data["tools"]["kv_store"]["adapters"]["postgres"]["global_quota_bytes"] = 10**9
    kv_config.write_text(yaml.safe_dump(data))
    return kv_config


@pytest.fixture
def worker_arguments() -> list[str]:
    """A pool whose connections to the database are known."""
    return ["--pool=threads", "--concurrency=2"]


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def kv_environ(kv_environ: dict[str, str], metrics_port: int) -> dict[str, str]:
    return {**kv_environ, "KVWORKER_METRICS_LISTEN": str(metrics_port)}


@pytest.fixture
def exporter_port(tmp_path: Path, kv_environ: dict[str, str]) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "kvworker", "metrics", "--listen", str(port)]
    with running(ProcessNode("exporter", command, directory=tmp_path, environ=kv_environ)) as node:
        wait_until(lambda: "http://" in node.logs() or node.status == "exited", what="the exporter")
        yield port


def scrape(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def series(scraped: str) -> dict[str, set[str]]:
    """Return the names of all series, each with its labels, as far as it has any now."""
    found: dict[str, set[str]] = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", scraped, re.MULTILINE):
        found |= {name + suffix: set() for suffix in _SUFFIXES.get(kind, ("",))}
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", scraped, re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return [
        *(target["expr"] for panel in panels for target in panel.get("targets", ())),
        *(rule["expr"] for group in groups for rule in group["rules"]),
    ]


def test_every_metric_of_the_dashboard_and_the_rules_exists(
    settings: Settings, worker_node: WorkerNode, metrics_port: int, exporter_port: int
) -> None:
    registry = CollectorRegistry()
    with KeyValueStore(settings, observer=CallMetrics(registry)) as store:
        store.set("n", "k", 1, timeout=60)
        store.set("n", "expiring", 1, ttl_seconds=3600)
    own = (registry, access_registry("mcp", FailedAttempts("the MCP server")))
    scraped = (scrape(metrics_port), scrape(exporter_port), *(generate_latest(each).decode() for each in own))
    found = series("\n".join(scraped))
    assert worker_node.status == "running"
    for expression in expressions():
        names = set(re.findall(r"\b(?:kvworker|process)_\w+", expression))
        assert names
        assert names <= found.keys(), expression
        for name, selectors in re.findall(r"(\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[!=]", selectors)) <= found[name] | TARGET_LABELS, expression
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", labels)) <= set().union(*(found[name] for name in names)), expression


def test_every_panel_says_what_it_shows_and_overlaps_no_other() -> None:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    cells = set[tuple[int, int]]()
    for panel in panels:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        taken = {(x, y) for x in columns for y in lines}
        assert not cells & taken, panel["title"]
        assert columns.stop <= 24
        cells |= taken
        assert panel["type"] == "row" or panel["description"].endswith(".")


def test_every_alert_is_explained_in_the_documentation() -> None:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    text = (ROOT / "docs/how-to/monitoring.md").read_text()
    assert re.findall(r"^\| `(Kvworker\w+)` \|", text, re.MULTILINE) == alerts


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_the_configurations_of_the_pages(tmp_path: Path) -> None:
    blocks = read_blocks(ROOT / "docs/how-to/monitoring.md")
    texts = {block.options["file"]: block.text for block in blocks if "scrape_configs" in block.text}
    assert {*texts} == {"prometheus.yml", "prometheus-compose.yml", "prometheus-kubernetes.yml"}
    for name, text in texts.items():
        config = yaml.safe_load(text)
        for job in config["scrape_configs"]:
            # Debian's Prometheus is built without it.
            job.pop("kubernetes_sd_configs", None)
        (tmp_path / name).write_text(yaml.safe_dump(config))
        promtool("check", "config", "--syntax-only", tmp_path / name)
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (job,) = yaml.safe_load(texts["prometheus-compose.yml"])["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert services[found["names"][0]]["environment"]["KVWORKER_METRICS_LISTEN"] == f"0.0.0.0:{found['port']}"
    assert (
        services["metrics"]["command"][-1].partition(":")[2] == job["static_configs"][0]["targets"][0].partition(":")[2]
    )


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", ROOT / "tests/support/alert_cases.yml")


@needs_promtool
def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    queries = [expression.replace("$__rate_interval", "5m") for expression in expressions()]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)
