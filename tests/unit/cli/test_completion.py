"""Shell completion of commands and options, as click provides it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from kvworker.cli.group import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[3]


def completions(words: list[str], incomplete: str) -> list[str]:
    completer = BashComplete(cli, {}, "kvworker", "_KVWORKER_COMPLETE")
    return [item.value for item in completer.get_completions(words, incomplete)]


def test_every_command_is_completed() -> None:
    assert completions([], "") == list(COMMANDS)
    assert completions([], "re") == ["recompute"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_completed(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    declared = {opt for param in command.params if isinstance(param, click.Option) for opt in param.opts}
    assert declared <= set(completions([name], "--"))


def test_choices_are_completed() -> None:
    assert completions(["tools", "--format"], "") == ["manifest", "openai", "anthropic", "gemini", "mcp"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_program_prints_a_completion_script(shell: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "_KVWORKER_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-m", "kvworker"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"_KVWORKER_COMPLETE={shell}_complete" in done.stdout


def test_bash_asks_the_program_for_completions() -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_KVWORKER_COMPLETE": "bash_complete",
        "COMP_WORDS": "kvworker rec",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "kvworker"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("plain,recompute\n", "")
