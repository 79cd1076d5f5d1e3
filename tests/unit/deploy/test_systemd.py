"""systemd accepts the units, and finds that they give away little."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from kvworker import Settings
from kvworker.settings.environment import CONFIG_VARIABLE, LOG_FORMAT_VARIABLE, METRICS_VARIABLE, SECRET_VARIABLES
from tests.support.documents import ROOT

DIRECTORY = ROOT / "deploy" / "systemd"
UNITS = sorted(DIRECTORY.glob("*.service"))
#: systemd's own scale: 0 gives away nothing, 10 everything.
MOST_EXPOSED = 2.0


def read(unit: Path) -> RawConfigParser:
    parser = RawConfigParser(strict=False, comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with a program that exists."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copies = []
    for unit in UNITS:
        text = unit.read_text()
        assert "\nExecStart=/opt/kvworker/bin/kvworker " in text
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text.replace("/opt/kvworker/bin/kvworker", sys.executable))
    return copies


def test_systemd_accepts_the_units(units: list[Path]) -> None:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_the_units_give_away_little(units: list[Path]) -> None:
    for unit in units:
        options = ["--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}"]
        done = subprocess.run(
            ["systemd-analyze", "security", "--no-pager", *options, str(unit)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_the_units_are_alike() -> None:
    hardening = [unit.read_text().partition("\nUMask=")[2].partition("\n\n")[0].strip() for unit in UNITS]
    assert len({*hardening}) == 1
    assert "NoNewPrivileges=yes" in hardening[0]


@pytest.mark.parametrize("name", ["worker@", "beat", "mcp", "dashboard"])
def test_systemd_watches_a_service(name: str) -> None:
    service = read(DIRECTORY / f"kvworker-{name}.service")["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) == 30


@pytest.mark.parametrize("unit", [unit for unit in UNITS if "migrate" not in unit.name], ids=lambda unit: unit.stem)
def test_a_service_is_restarted_and_limited(unit: Path) -> None:
    service = read(unit)["Service"]
    assert service["Restart"] == "always"
    assert service["User"] == service["Group"] == "kvworker"
    assert service["EnvironmentFile"] == "/etc/kvworker/kvworker.env"
    assert {"MemoryMax", "TimeoutStopSec"} <= {*service}


@pytest.mark.parametrize("name", ["mcp", "dashboard"])
def test_a_server_over_http_demands_tokens_and_listens_on_this_machine_alone(name: str) -> None:
    command = read(DIRECTORY / f"kvworker-{name}.service")["Service"]["ExecStart"]
    assert command.endswith(" --tokens /etc/kvworker/tokens")
    assert "--host" not in command
    # The alert KvworkerAccessFailures and Grafana's dashboard need them.
    assert re.search(r" --metrics-listen 983[0-9] ", command)
    assert " /etc/kvworker/tokens\n" in (ROOT / "docs" / "how-to" / "systemd.md").read_text()


@pytest.mark.parametrize("name", ["kvworker-worker@", "kvworker-beat"])
def test_each_process_has_its_own_heartbeat_and_time_to_stop(name: str) -> None:
    service = read(DIRECTORY / f"{name}.service")["Service"]
    directory = f"/run/{service['RuntimeDirectory']}/"
    assert service["Environment"] == f"KVWORKER_HEARTBEAT={directory}heartbeat"
    if "worker@" in name:
        settings = Settings()
        budgets = [value for field, value in settings.maintenance if field.endswith("_budget_seconds")]
        assert int(service["TimeoutStopSec"]) > max(budgets) + settings.queue.soft_shutdown_seconds


@pytest.mark.parametrize("name", ["kvworker", "migrate"])
def test_the_variables_of_the_examples_are_read(name: str) -> None:
    text = (DIRECTORY / f"{name}.env.example").read_text()
    named = re.findall(r"^(\w+)=(\S+)$", text, re.MULTILINE)
    assert named
    plain = {METRICS_VARIABLE, LOG_FORMAT_VARIABLE}
    paths = {variable: value for variable, value in named if variable not in plain}
    assert {variable.removesuffix("_FILE") for variable in paths} <= {CONFIG_VARIABLE, *SECRET_VARIABLES}
    assert all(value.startswith("/etc/kvworker/") for value in paths.values())
    assert f"EnvironmentFile=/etc/kvworker/{name}.env\n" in (DIRECTORY / "kvworker-migrate.service").read_text()
