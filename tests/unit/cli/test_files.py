"""Files that commands read and write: pipes and links are kept, and a failure is one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from kvworker.cli import main
from kvworker.ops.database import open_adapter
from kvworker.ops.entry_lines import parse_line, read_lines
from kvworker.settings import Settings

_LINE = '{"namespace":"ναμε","key":"key","value":"\\u2028 é 😀"}\n'


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with one entry, whose names and value do not fit into any 8-bit encoding."""
    config = tmp_path / "kvworker.yaml"
    block = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True}
    config.write_text(
        yaml.safe_dump({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}})
    )
    monkeypatch.setenv("KVWORKER_CONFIG", str(config))
    with open_adapter(Settings.load(config)) as adapter:
        adapter.set("ναμε", "key", "\u2028 é 😀")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def test_export_keeps_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        # Open it for reading and writing, so that neither end waits for the other.
        descriptor = os.open(pipe, os.O_RDWR)
        read = reader.submit(os.read, descriptor, 10_000)
        try:
            assert run("export", str(pipe)) == 0
            assert stat.S_ISFIFO(pipe.lstat().st_mode)
            assert read.result(timeout=10).decode() == _LINE
        finally:
            os.write(descriptor, b"\n")
            os.close(descriptor)


def test_export_through_a_link_writes_its_target(tmp_path: Path) -> None:
    link, file = tmp_path / "link.jsonl", tmp_path / "file.jsonl"
    link.symlink_to(file)
    assert run("export", str(link)) == 0
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8") == _LINE


def test_export_is_utf_8_whatever_the_encoding_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert run("export") == 0
    assert written.getvalue().decode() == _LINE


def test_json_is_escaped_if_the_output_cannot_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert run("namespaces", "--json") == 0
    assert json.loads(written.getvalue())[0]["namespace"] == "ναμε"


def test_import_reads_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(pipe.write_text, "\n\n")
        assert run("import", str(pipe)) == 0
        assert written.result(timeout=10) == 2
    assert capsys.readouterr().out == "applied 0, replayed 0, failed 0\n"


def test_a_file_that_cannot_be_created_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for command in (("export", f"{tmp_path}/none/out.jsonl"), ("up", "--state", f"{tmp_path}/file/state")):
        assert run(*command) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"Error: {tmp_path}/")
        assert error.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "kvworker", "export"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, "Error: No space left on device\n")


def test_export_follows_no_planted_link_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("untouched")
    (tmp_path / "out.jsonl.part").symlink_to(victim)
    file.write_text("an older export")
    file.chmod(0o644)
    assert run("export", str(file)) == 0
    assert victim.read_text() == "untouched"
    assert file.read_text(encoding="utf-8") == _LINE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} >= {"out.jsonl", "out.jsonl.part", "victim"}
    assert not list(tmp_path.glob(".kvworker-*"))


def test_export_writes_own_quotas(tmp_path: Path) -> None:
    with open_adapter(Settings.load(tmp_path / "kvworker.yaml")) as adapter:
        adapter.set_quota("ναμε", 5000)
        adapter.set_quota("empty", 70)
    file = tmp_path / "out.jsonl"
    assert run("export", str(file)) == 0
    quotas = ['{"namespace":"empty","quota_bytes":70}\n', '{"namespace":"ναμε","quota_bytes":5000}\n']
    assert file.read_text(encoding="utf-8") == "".join([*quotas, _LINE])
    assert run("export", str(file), "--namespace", "ναμε") == 0
    assert file.read_text(encoding="utf-8") == quotas[1] + _LINE


def test_a_quota_below_what_the_namespace_holds_comes_after_its_entries(tmp_path: Path) -> None:
    with open_adapter(Settings.load(tmp_path / "kvworker.yaml")) as adapter:
        adapter.set_quota("ναμε", 5)
        used = adapter.usage("ναμε")[0].used_bytes
    file = tmp_path / "out.jsonl"
    assert run("export", str(file)) == 0
    first, last = (f'{{"namespace":"ναμε","quota_bytes":{size}}}\n' for size in (used, 5))
    assert file.read_text(encoding="utf-8") == first + _LINE + last


@pytest.mark.parametrize(
    ("command", "closed"),
    [("export", ">&-"), ("namespaces", ">&-"), ("import -", "<&-"), ("set n k -", "<&-"), ("batch n -", "<&-")],
)
def test_a_closed_standard_stream_is_one_line(command: str, closed: str) -> None:
    line = f"{sys.executable} -m kvworker {command} {closed}"
    ended = subprocess.run(["/bin/sh", "-c", line], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    expected = "Error: standard input or output is closed, and this command needs it\n"
    assert (ended.returncode, ended.stderr) == (1, expected)


def test_a_command_that_needs_no_standard_stream_works_without_any(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    line = f"{sys.executable} -m kvworker export {file} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", line], timeout=60, check=False).returncode == 0
    assert file.read_text(encoding="utf-8") == _LINE


@pytest.mark.parametrize(
    ("content", "problem"),
    [(gzip.compress(_LINE.encode()), "it is compressed"), (_LINE.encode("utf-16"), "it is UTF-16")],
    ids=["gzip", "UTF-16"],
)
def test_a_file_that_holds_no_lines_is_one_error(
    content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(content)
    assert run("import", str(file)) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_lines_with_a_byte_order_mark_and_carriage_returns_are_read() -> None:
    file = io.BytesIO(b'\xef\xbb\xbf{"namespace":"n","key":"a","value":1}\r\n{"namespace":"n","key":"b","value":2}\r\n')
    parsed = [parse_line(line, 1000) for line in read_lines(file, 1000)]
    assert [(line["key"], line["value"].value) for line in parsed] == [("a", 1), ("b", 2)]


def test_a_long_line_is_cut_before_it_is_in_memory_and_the_next_one_is_read() -> None:
    file = io.BytesIO(b"x" * 3_000_000 + b"\nnext\n" + b"y" * 11)
    assert list(read_lines(file, 10)) == [b"x" * 11, b"next\n", b"y" * 11]
