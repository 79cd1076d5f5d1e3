"""Every path that kvworker trusts because of its place has the same check: no other user may have written it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kvworker import AsyncKeyValueStore, InlineKeyValueStore, KeyValueStore
from kvworker.cli import main
from kvworker.errors import ConfigurationError
from kvworker.ops.celery_processes import schedule_directory
from kvworker.ops.local.servers import embedded_valkey
from kvworker.ops.local.stack import running_stack
from kvworker.settings import Settings
from kvworker.settings.provenance import effective_settings

_SOMEBODY = 54321


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration file of ``kvworker up``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVWORKER_CONFIG", raising=False)
    state = tmp_path / ".kvworker"
    state.mkdir(mode=0o700)
    (state / "kvworker.yaml").write_text("queue: {queue_name: planted}\n")
    (state / "kvworker.yaml").chmod(0o600)
    return tmp_path


def by_others_writable(path: Path, _: pytest.MonkeyPatch) -> None:
    path.chmod(0o777)


def by_the_group_writable(path: Path, _: pytest.MonkeyPatch) -> None:
    path.chmod(0o720)


def of_another_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(path, _SOMEBODY, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: _SOMEBODY)


def a_link(path: Path, _: pytest.MonkeyPatch) -> None:
    elsewhere = path.with_name("elsewhere")
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


FAULTS = [by_others_writable, by_the_group_writable, of_another_owner, a_link]

DIRECTORY_USERS: dict[str, Callable[[], object]] = {
    "up": lambda: running_stack(Path(".kvworker")).__enter__(),
    "server": lambda: embedded_valkey(Path(".kvworker")).__enter__(),
    "beat": lambda: schedule_directory(Path(".kvworker")),
    "beat by default": lambda: schedule_directory(None),
}
FILE_USERS: dict[str, Callable[[], object]] = {
    "settings": Settings.load,
    "store": KeyValueStore.from_config,
    "async store": AsyncKeyValueStore.from_config,
    "inline store": InlineKeyValueStore.from_config,
    "config show": lambda: effective_settings(None, {}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("user", [*DIRECTORY_USERS, *FILE_USERS])
def test_a_directory_that_another_user_could_have_written_is_refused(
    fault: Callable[[Path, pytest.MonkeyPatch], None], user: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(workplace / ".kvworker", monkeypatch)
    with pytest.raises(ConfigurationError, match=r"^\.kvworker (is a symbolic link|belongs to another|can be written)"):
        (DIRECTORY_USERS | FILE_USERS)[user]()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("user", FILE_USERS)
def test_a_file_that_another_user_could_have_written_is_refused(
    fault: Callable[[Path, pytest.MonkeyPatch], None], user: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workplace / ".kvworker" / "kvworker.yaml"
    fault(file, monkeypatch)
    refused = r"^\.kvworker(/kvworker\.yaml)? (is|belongs|can).* or name a file with"
    with pytest.raises(ConfigurationError, match=refused):
        FILE_USERS[user]()


@pytest.mark.parametrize(
    "command", [["get", "n", "k"], ["doctor"], ["worker"], ["beat"], ["config", "show"]], ids=" ".join
)
def test_commands_refuse_it_in_one_line(command: list[str], workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (workplace / ".kvworker" / "kvworker.yaml").chmod(0o666)
    with pytest.raises(SystemExit) as ended:
        main(command)
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert "chmod go-w .kvworker/kvworker.yaml" in out + err


def test_a_file_that_is_named_may_be_anybodys(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator's file in /etc, or a mounted one, belongs to others. The user chose it."""
    file = workplace / ".kvworker" / "kvworker.yaml"
    file.chmod(0o666)
    assert Settings.load(file).queue.queue_name == "planted"
    monkeypatch.setenv("KVWORKER_CONFIG", str(file))
    assert Settings.load().queue.queue_name == "planted"


def test_a_new_directory_is_private(workplace: Path) -> None:
    assert schedule_directory(workplace / "a" / "b").stat().st_mode & 0o777 == 0o700
