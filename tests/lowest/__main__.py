"""``python -m tests.lowest DIRECTORY``: make a virtual environment of the oldest versions there, and run tests in it.

It downloads packages, so it is not part of ``make test``. The first stage installs the dependencies alone. The second
adds the integrations, some of which raise the versions of the first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTEST = ("-q", "-n", "4", "--dist", "loadfile", "-p", "no:cacheprovider")
#: kombu 5.5 calls redis-py 5.3 in a way that this deprecates.
IGNORED = (
    "-W",
    "ignore:Call to 'get_connection':DeprecationWarning",
    # The test client of Starlette before 1.1 uses a name that anyio deprecates.
    "-W",
    "ignore:The anyio:DeprecationWarning",
)
#: The tools that run the tests keep their versions from constraints.txt.
TOOLS = (
    "cachetools",
    # Starlette's client of its tests needs it.
    "httpx",
    "hypothesis",
    "jsonschema",
    "kubernetes-validate",
    "langgraph-checkpoint-conformance",
    "psutil",
    "pytest",
    "pytest-celery",
    "pytest-timeout",
    "pytest-xdist",
    "trustme",
)

_REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(?P<extras>\[[^]]*\])?>=(?P<version>[\w.]+)")


@dataclass(frozen=True)
class Stage:
    """A set of extras at their oldest versions, and the tests that need no more than these."""

    extras: tuple[str, ...]
    tests: tuple[str, ...]


STAGES = (
    Stage(
        ("dashboard", "embedded", "metrics", "otel", "signing"),
        (
            "tests/unit",
            "--ignore=tests/unit/integrations",
            "--ignore=tests/unit/cli/test_tools.py",
            # pydantic 2.10 writes the same schema in fewer words.
            "--deselect=tests/unit/settings/test_schema.py",
            # click 8.1 begins a new line before the error, and after progress that nobody sees.
            "--deselect=tests/unit/cli/test_files.py::test_a_full_disk_is_one_line",
            "--deselect=tests/unit/cli/test_files.py::test_a_closed_standard_stream_is_one_line[export->&-]",
            "--deselect=tests/unit/cli/test_verify.py::test_a_consistent_store_is_reported_in_one_line",
            "tests/conformance",
            "tests/integration",
            # Celery before 5.7 tells receivers no retry policy where it does not retry.
            "--deselect=tests/integration/test_publisher.py::"
            "test_receivers_of_celerys_signals_get_the_arguments_that_celery_gives",
            "tests/acceptance/shared/test_round_trip.py",
            "tests/acceptance/test_worker_errors.py",
            "tests/acceptance/test_timeouts.py",
            "tests/acceptance/test_signed_messages.py",
        ),
    ),
    # FastMCP and LangGraph itself need newer packages than the integrations do.
    Stage(
        ("anthropic", "langchain", "langgraph", "mcp", "openai-agents", "py-key-value", "vectors"),
        (
            "tests/unit/integrations",
            "tests/unit/cli/test_tools.py",
            "tests/ecosystem",
            "--ignore=tests/ecosystem/test_fastmcp.py",
            "--ignore=tests/ecosystem/test_langgraph_graph.py",
            "--ignore=tests/ecosystem/test_langgraph_saver_graph.py",
            # LangGraph's own store checks all labels since langgraph-checkpoint 4.3; ours does so with any release.
            "--deselect=tests/ecosystem/test_langgraph.py::test_a_wrong_label_is_refused[langgraph-",
            # Anthropic's own tool words some of its answers in another way since.
            "--deselect=tests/ecosystem/test_claude_memory.py::test_the_commands_give_the_same_answers",
            "tests/acceptance/test_mcp_stdio.py",
        ),
    ),
)


def oldest(requirements: list[str]) -> Iterator[str]:
    """Turn each requirement into the oldest version that it allows.

    Raises:
        ValueError: A requirement is not of the form ``name[extras]>=version``.
    """
    for requirement in requirements:
        found = _REQUIREMENT.fullmatch(requirement)
        if found is None:
            raise ValueError(f"{requirement!r} does not state an oldest version alone")
        yield f"{found['name']}=={found['version']}"


def tool_pins() -> Iterator[str]:
    """Yield the lines of constraints.txt that are about the tools."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.partition("==")[0].lower() in TOOLS:
            yield line


def install(python: Path, extras: tuple[str, ...], pins: list[str]) -> None:
    """Install kvworker with extras and tools. pip keeps installed packages that are new enough.

    Exits with pip's code if pip fails.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins))
        constraints.flush()
        target = f"{ROOT}[{','.join(extras)}]"
        options = ["--quiet", "--disable-pip-version-check", "--constraint", constraints.name]
        done = subprocess.run(
            [python, "-m", "pip", "install", *options, "--editable", target, *tool_pins()], check=False
        )
    if done.returncode:
        sys.exit(done.returncode)


def passes(python: Path, stage: Stage) -> bool:
    """Run a stage's tests."""
    click.secho(f"oldest versions, with {', '.join(stage.extras)}", bold=True)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [str(python), "-m", "pytest", *PYTEST, *IGNORED, *stage.tests]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def main(directory: Path) -> None:
    """Make an environment of the oldest versions in DIRECTORY and run tests in it."""
    python = directory.resolve() / "bin" / "python"
    venv.create(directory, clear=True, with_pip=True)
    pins = list(oldest(PROJECT["dependencies"]))
    failed = False
    for stage in STAGES:
        pins += [pin for extra in stage.extras for pin in oldest(EXTRAS[extra])]
        install(python, stage.extras, pins)
        failed |= not passes(python, stage)
        # An integration's requirements may be newer than the oldest versions without it.
        pins = []
    sys.exit(failed)


if __name__ == "__main__":
    main()
