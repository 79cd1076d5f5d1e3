"""Builds the source distribution and the wheel, and lists what an installation brings along."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SUMS = "SHA256SUMS"


def build(target: Path, source: Path = ROOT) -> Path:
    """Build both distributions into a directory, and return the wheel.

    Hatchling sets all times in the archives to one fixed day, orders their files, and gives these the same rights. So
    the same source makes the same bytes, wherever and whenever it is built.

    Args:
        target: The directory for the distributions.
        source: The directory of the source.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target.resolve())]
    _run(command, source)
    (wheel,) = target.glob("*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> Path:
    """Install a wheel with its dependencies, and nothing else, into a new environment, and return its interpreter."""
    venv.create(directory)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "-c", str(CONSTRAINTS)]
    _run([*pip, "--disable-pip-version-check", str(wheel)])
    return python


def list_components(python: Path, version: str, target: Path) -> None:
    """Write the bill of materials (SBOM, in CycloneDX's JSON) of an environment that has kvworker and its dependencies.

    Args:
        python: The interpreter of the environment.
        version: The version of kvworker. The tool cannot read it, because it is not in ``pyproject.toml``.
        target: The file to write.
    """
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-format", "JSON"]
    project = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library"]
    bill = json.loads(_run([*tool, *project, str(python)]))
    bill["metadata"]["component"]["version"] = version
    target.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_sums(directory: Path) -> None:
    """Write the hashes of a directory's files, in the form that ``sha256sum --check`` reads."""
    files = sorted(path for path in directory.iterdir() if path.name not in {SUMS, ".gitignore"})
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def make_release(target: Path) -> None:
    """Build the distributions, their bill of materials and the hashes of all of these into an empty directory."""
    wheel = build(target)
    name, version, *_ = wheel.name.split("-")
    with tempfile.TemporaryDirectory() as directory:
        list_components(install(wheel, Path(directory)), version, target / f"{name}-{version}.cdx.json")
    write_sums(target)


def _run(command: list[str], directory: Path = ROOT) -> bytes:
    """Run a program of our own, and return its output."""
    return subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE, timeout=600).stdout  # noqa: S603
