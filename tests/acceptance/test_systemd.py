"""The units without systemd: what they start reports to a notify socket, under the limits that a test can set."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from kvworker.access import TokenStore
from tests.support.containers import Container
from tests.support.health import FakeSystemd, fake_systemd, probe
from tests.support.processes import wait_until
from tests.support.servers import free_port
from tests.unit.deploy.test_systemd import DIRECTORY, read

#: Linux's PR_SET_NO_NEW_PRIVS and PR_SET_MDWE, for NoNewPrivileges and MemoryDenyWriteExecute. An older kernel lacks
#: the latter.
_LIMITED = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
prctl(38, 1, 0, 0, 0), prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
PORTS = ("8000", "9809", "9810", "9830", "9831")


def start(unit: str, home: Path, config: Path, systemd: FakeSystemd) -> tuple[subprocess.Popen[bytes], Path]:
    """Start what a unit starts, and return it with the file of its heartbeat."""
    service = read(DIRECTORY / f"{unit}.service")["Service"]
    runtime, state = home / "run", home / "state"
    paths = {"/var/lib/kvworker": str(state), "/etc/kvworker/tokens": str(config.with_name("tokens"))}
    paths |= {port: str(free_port()) for port in PORTS}
    environ = {"KVWORKER_CONFIG": str(config), "TMPDIR": str(home / "tmp"), **systemd.environ}
    if "Environment" in service:
        paths[f"/run/{service['RuntimeDirectory']}"] = str(runtime)
        variable, _, environ[variable] = service["Environment"].partition("=")
    container = Container(home, environ, paths, [runtime, state, home / "tmp"])
    program, *words = service["ExecStart"].replace("%%", "%").replace("%i", "1").split()
    command = container.command([Path(program).name, *words])
    limited = [sys.executable, "-c", _LIMITED, *command]
    if command[0] == "unshare":
        limited = [*command[: command.index(sys.executable)], *limited[:3], *command[command.index(sys.executable) :]]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(limited, cwd=home, env=container.environ, stdout=log, stderr=subprocess.STDOUT)
    return process, runtime / "heartbeat"


@pytest.fixture
def config(tmp_path: Path, postgres_url: str, valkey_url: str) -> Path:
    postgres = {"url": postgres_url}
    data = {"queue": {"broker_url": valkey_url}, "tools": {"kv_store": {"adapters": {"postgres": postgres}}}}
    config = tmp_path / "kvworker.yaml"
    config.write_text(yaml.safe_dump(data))
    return config


@pytest.mark.parametrize(("unit", "name"), [("kvworker-worker@", "worker 1@"), ("kvworker-beat", "beat ")])
def test_what_a_unit_starts_tells_systemd_how_it_is(tmp_path: Path, config: Path, unit: str, name: str) -> None:
    with fake_systemd(tmp_path, float(read(DIRECTORY / f"{unit}.service")["Service"]["WatchdogSec"])) as systemd:
        home = tmp_path / "service"
        process, heartbeat = start(unit, home, config, systemd)
        try:
            wait_until(lambda: "READY=1" in systemd.reports() or process.poll() is not None, what="READY=1")
            assert process.poll() is None, (home / "log").read_text()
            assert re.match(rf"ok   {name}", probe("--ready", str(heartbeat)))
            # The process that systemd started is the one that reports, as NotifyAccess=main demands.
            assert f"\n{process.pid}\n" in heartbeat.read_text()
        finally:
            process.terminate()
            code = process.wait(timeout=60)
        assert code == 0, (home / "log").read_text()
        assert "STOPPING=1" in systemd.reports()
        assert "WATCHDOG=1" in systemd.reports()


@pytest.mark.parametrize(("unit", "path"), [("mcp", "/readyz"), ("dashboard", "/readyz"), ("metrics", "/metrics")])
def test_what_a_unit_starts_serves_over_http(tmp_path: Path, config: Path, unit: str, path: str) -> None:
    TokenStore(tmp_path / "tokens").create("ops", persona=None, namespace_prefix=None, expires_at=None)
    service = read(DIRECTORY / f"kvworker-{unit}.service")["Service"]
    with fake_systemd(tmp_path, 30) as systemd:
        home = tmp_path / "service"
        process, _ = start(f"kvworker-{unit}", home, config, systemd)

        def log() -> str:
            return (home / "log").read_text()

        try:
            wait_until(lambda: " at http" in log() or process.poll() is not None, what="the address")
            assert process.poll() is None, log()
            found = re.search(r" at (http://[\d.:]+)/\S*\n", log())
            assert found is not None
            with urlopen(found[1] + path, timeout=60) as response:  # noqa: S310 - loopback
                assert response.status == 200
            if service["Type"] == "notify":
                wait_until(lambda: {"READY=1", "WATCHDOG=1"} <= {*systemd.reports()}, what="READY=1")
        finally:
            process.terminate()
            code = process.wait(timeout=60)
        assert code == int(service.get("SuccessExitStatus", 0)), log()
