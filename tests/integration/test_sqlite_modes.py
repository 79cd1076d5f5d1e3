"""A SQLite store that kvworker makes is its owner's alone, and the doctor finds one that others can use."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvworker import Settings
from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sqlite import files
from kvworker.errors import KVStoreError
from kvworker.ops.doctor import Finding, run_checks
from tests.support.documents import ROOT, read_blocks

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


GROUP = 54323


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to any group")
def test_a_store_for_a_group_that_is_made_as_documented_is_the_groups_with_its_log(directory: Path) -> None:
    (block,) = (each.text for each in read_blocks(ROOT / "docs/how-to/secure.md") if "install -d" in each.text)
    script = block.replace("GROUP", str(GROUP)).replace("/var/lib", str(directory))
    subprocess.run(["sh", "-e", "-c", script], check=True)
    file = directory / "kv" / "kv.sqlite"
    with make(url_of(file, "plain")) as adapter:
        adapter.set("n", "k", 1)
        assert modes(file) == [0o660] * 3
    # SQLite gives its log the file's group only if root runs it. Whatever a user makes there must be the group's, too.
    (file.parent / "made").touch()
    assert {each.stat().st_gid for each in file.parent.iterdir()} == {GROUP}


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


@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_link_to_a_missing_file_makes_a_private_one(directory: Path, umask: int) -> None:
    (directory / "kv.sqlite").symlink_to("real.sqlite")
    os.umask(umask)
    with make(url_of(directory / "kv.sqlite", "plain")) as adapter:
        adapter.set("n", "k", 1)
        assert modes(directory / "real.sqlite") == [0o600] * 3


def test_making_the_file_ends_no_lock_of_another_thread(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without its lock on the file loses its log, and with it acknowledged writes, to any other process."""
    file = directory / "kv.sqlite"
    url = url_of(file, "plain")
    opened: list[KeyValueStoreAdapter] = []

    def close(descriptor: int) -> None:
        """Let another thread use the file as soon as it exists."""
        if file.exists() and not opened:
            opened.append(make(url))
            opened[0].set("n", "first", 1)
        os.close(descriptor)

    monkeypatch.setattr(files, "os", SimpleNamespace(**{**vars(os), "close": close}))
    with make(url) as adapter:
        adapter.set("n", "first", 1)
        opened.append(adapter)
        if opened[0] is not adapter:
            adapter.close()
        assert count_elsewhere(file) == 1
        opened[0].set("n", "second", 2)
        assert count_elsewhere(file) == 2
        opened[0].close()
    assert [each.name for each in directory.iterdir()] == ["kv.sqlite"]


def test_processes_and_threads_make_one_file_at_once(directory: Path) -> None:
    file = directory / "kv.sqlite"
    program = f"""
import threading
from kvworker.adapters import create_kv_store_adapter
with create_kv_store_adapter("sqlite", {{"url": {url_of(file, "plain")!r}, "migrate_on_start": True}}) as adapter:
    threads = [threading.Thread(target=adapter.increment, args=("n", "k")) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""
    programs = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [each.wait(120) for each in programs] == [0] * 3
    with make(url_of(file, "plain")) as adapter:
        assert adapter.get("n", "k").value == 24
        assert modes(file) == [0o600] * 3
    assert [each.name for each in directory.iterdir()] == ["kv.sqlite"]


def count_elsewhere(file: Path) -> int:
    """Count the entries in another process, which then closes the database."""
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("SELECT count(*) FROM kv_entries").fetchone())
connection.close()
"""
    found = subprocess.run([sys.executable, "-c", program, file], capture_output=True, check=True, text=True)
    return int(found.stdout)


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
