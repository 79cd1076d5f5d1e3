"""A SQLite store that kvworker makes is its owner's alone, and the doctor finds one that others can use."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kvworker import Settings
from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.errors import KVStoreError
from kvworker.ops.doctor import Finding, run_checks

SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can enter, unlike pytest's own, under the umask of most users."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        if any(not parent.stat().st_mode & 0o001 for parent in directory.resolve().parents):
            pytest.skip("other users cannot enter the directory for temporary files")
        before = os.umask(0o022)
        yield directory
        os.umask(before)


def url_of(file: Path, form: str) -> str:
    return {"plain": f"sqlite:///{file}", "uri": f"sqlite:///file:{file}?uri=true&mode=rwc"}[form]


def make(url: str) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("sqlite", {"url": url, "migrate_on_start": True})


def modes(file: Path) -> list[int]:
    return [file.with_name(file.name + suffix).stat().st_mode & 0o777 for suffix in SUFFIXES]


@pytest.mark.parametrize("form", ["plain", "uri"])
def test_a_new_store_is_its_owner_s_alone(directory: Path, form: str) -> None:
    with make(url_of(directory / "kv.sqlite", form)) as adapter:
        adapter.set("n", "k", 1)
        assert modes(directory / "kv.sqlite") == [0o600] * 3


def test_an_existing_file_keeps_its_mode(directory: Path) -> None:
    file = directory / "kv.sqlite"
    file.touch()
    file.chmod(0o660)
    with make(url_of(file, "plain")) as adapter:
        adapter.set("n", "k", 1)
        assert modes(file) == [0o660] * 3


def test_a_file_that_must_exist_is_not_made(directory: Path) -> None:
    with (
        make(f"sqlite:///file:{directory}/kv.sqlite?uri=true&mode=rw") as adapter,
        pytest.raises(KVStoreError, match="open"),
    ):
        adapter.get("n", "k")
    assert not [*directory.iterdir()]


def check(file: Path) -> Finding:
    block = {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": f"sqlite:///{file}"}}}
    (finding,) = run_checks(Settings.from_mapping({"tools": {"kv_store": block}}), ("database",))
    return finding


def test_the_doctor_finds_a_store_that_others_can_use(directory: Path) -> None:
    file = directory / "kv.sqlite"
    with make(f"sqlite:///{file}") as adapter:
        adapter.set("n", "k", 1)
    assert check(file).ok
    with closing(sqlite3.connect(file)) as reader:
        reader.execute("SELECT count(*) FROM kv_entries").fetchone()
        for mode, is_open in ((0o644, True), (0o602, True), (0o660, False)):
            file.chmod(mode)
            finding = check(file)
            assert finding.ok is not is_open
            assert (f"`chmod o= {file}" in finding.fix) is is_open
    file.chmod(0o644)
    directory.chmod(0o750)
    assert check(file).ok, "others cannot enter the directory"
