"""A mistyped command line gets an answer that names the mistake."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kvworker.cli import main
from kvworker.cli.signals import interruptible
from kvworker.settings.config_file import UP_CONFIG


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "f.yaml", "get", "n", "k"], "--config belongs after the command"),
        (["gett", "n", "k"], "No such command 'gett'; did you mean get?"),
        (["frobnicate"], "No such command 'frobnicate' (see"),
        (["set", "n", "k", "1", "--ttl", "abc"], "'abc' is not a number of seconds, such as 60 or 0.5"),
        (["touch", "n", "k", "soon"], "'soon' is not a number of seconds, such as 60 or 0.5"),
        (["get", "n", "k", "--timeout", "5s"], "'5s' is not a number of seconds, such as 60 or 0.5"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = error_of(arguments, capsys)
    assert code == 2
    assert part in message


def test_a_stopped_local_stack_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVWORKER_CONFIG", raising=False)
    UP_CONFIG.parent.mkdir(mode=0o700)
    UP_CONFIG.touch(mode=0o600)
    UP_CONFIG.write_text("queue: {broker_url: 'redis+socket://.kvworker/valkey.sock'}\n")
    code, message = error_of(["get", "n", "k", "--timeout", "1"], capsys)
    assert code == 1
    assert "No such file or directory.); start the broker (`kvworker up` starts a local one)" in message


def test_a_command_keeps_running_below_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_restores_the_signal_handlers_of_its_process() -> None:
    """A program that runs the command in its own process still ends by Ctrl-C afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
