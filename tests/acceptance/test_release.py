"""``make dist`` builds the same files from the same source, and the bill of materials lists pip's installation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import kvworker
from release.distribution import build, list_components, write_sums
from tests.support.documents import ROOT
from tests.support.requirements import installed_with_kvworker

#: The parts of a checkout that are not source.
_NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", ".kvworker", "site", "dist", "build"
)


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("first") / "source", ignore=_NOT_SOURCE)


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    build(directory, source)
    return directory


def test_another_day_place_and_user_build_the_same_bytes(built: Path, source: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(source, tmp_path / "elsewhere" / "kv")
    for path in copy.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)
    (copy / "kvworker" / "__pycache__").mkdir()
    (copy / "kvworker" / "__pycache__" / "left_over.pyc").touch()
    before = os.umask(0o077)
    try:
        build(tmp_path / "built", copy)
    finally:
        os.umask(before)
    assert hashes(tmp_path / "built") == hashes(built)
    assert len(hashes(built)) == 2


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "tests" / "conftest.py").exists()
    wheel = build(tmp_path / "built", unpacked)
    assert hashes(wheel.parent)[wheel.name] == hashes(built)[wheel.name]


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Path:
    """The interpreter of an environment with the metadata of what pip would install, made without a network."""
    venv.create(tmp_path / "environment")
    (site_packages,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)  # noqa: S202 - our own archive
    for name in installed_with_kvworker() - {"kvworker"}:
        for file in distribution(name).files or ():
            if file.parts[0].endswith(".dist-info"):
                (site_packages / file.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), site_packages / file)
    return tmp_path / "environment" / "bin" / "python"


def test_the_bill_of_materials_lists_every_dependency(installed: Path, tmp_path: Path) -> None:
    for name in ("first.json", "second.json"):
        list_components(installed, kvworker.__version__, tmp_path / name)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    text = (tmp_path / "first.json").read_text()
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("kvworker", kvworker.__version__)
    listed = {canonicalize_name(component["name"]): component for component in bill["components"]}
    assert set(listed) == installed_with_kvworker() - {"kvworker"}
    assert all(component["purl"].startswith("pkg:pypi/") for component in listed.values())
    (depends,) = (item["dependsOn"] for item in bill["dependencies"] if item["ref"] == root["bom-ref"])
    assert any(name.startswith("celery==") for name in depends)
    # No place on the machine that built it.
    assert not any(place in text for place in ("file:", str(tmp_path), str(ROOT), sys.prefix))


def test_every_dependency_of_an_installation_is_pinned_for_the_release() -> None:
    """Otherwise the same source would have another bill of materials tomorrow."""
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert installed_with_kvworker() - {"kvworker"} <= pinned


def test_the_hashes_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_text("wheel")
    (tmp_path / "a.tar.gz").write_text("source")
    write_sums(tmp_path)
    write_sums(tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text().splitlines() == [
        f"{hashlib.sha256(b'source').hexdigest()}  a.tar.gz",
        f"{hashlib.sha256(b'wheel').hexdigest()}  b.whl",
    ]
