from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from kvworker import InlineKeyValueStore
from kvworker.cli import main, tool_command


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Kvworker = Callable[..., Ran]


@pytest.fixture
def kvworker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kvworker:
    """Runs a command whose tools run in this process, on the test's own SQLite file."""
    config = tmp_path / "kvworker.yaml"
    block = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True}
    config.write_text(
        yaml.safe_dump({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}})
    )
    monkeypatch.setenv("KVWORKER_CONFIG", str(config))
    monkeypatch.setattr(tool_command, "KeyValueStore", InlineKeyValueStore)

    def run(*arguments: str, stdin: bytes = b"", typed: str | None = None) -> Ran:
        """Run a command with ``stdin`` through a pipe, or with ``typed`` at a terminal."""
        with _piped(stdin) if typed is None else _terminal(typed) as source, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", source)
            with pytest.raises(SystemExit) as exit_info:
                main(arguments)
        assert isinstance(exit_info.value.code, int)
        captured = capsys.readouterr()
        return Ran(exit_info.value.code, captured.out, captured.err)

    return run


@contextmanager
def _piped(data: bytes) -> Iterator[IO[str]]:
    yield io.TextIOWrapper(io.BytesIO(data))


@contextmanager
def _terminal(typed: str) -> Iterator[IO[str]]:
    user, terminal = os.openpty()
    os.write(user, typed.encode())
    with os.fdopen(user), os.fdopen(terminal) as source:
        yield source
