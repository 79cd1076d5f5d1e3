"""A URL's user and password are read again from the file that the environment names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from kvworker.settings.environment import FALLBACKS
from kvworker.settings.url_files import Credentials, UrlFile

BROKER = "KVWORKER_BROKER_URL_FILE"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "url"
    path.write_text("redis://me:old@h/1\n")
    return path


@pytest.fixture
def file(path: Path) -> UrlFile:
    return UrlFile(BROKER, path, "redis://me:old@h/1")


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("redis://h/1", None, None),
        ("redis://:p@h", None, "p"),
        ("redis://u@h", "u", None),
        ("redis://u:p%40%2F%3A@h:1/0?ssl_cert_reqs=none", "u", "p@/:"),
        ("sentinel://u:p%2C@a:1,b:2/0?master_name=m", "u", "p,"),
        ("postgresql+psycopg://u%20v:p@a:1,b:2/d?sslmode=require", "u v", "p"),
        ("postgresql:///d?host=/run&user=u&password=p%25", "u", "p%"),
        ("amqp://u:p@h//", "u", "p"),
    ],
)
def test_user_and_password_of_a_url(url: str, username: str | None, password: str | None) -> None:
    found = Credentials.of_url(url)
    assert (found.username, found.password) == (username, password)


def test_a_changed_file_counts_and_an_unreadable_one_does_not(
    path: Path, file: UrlFile, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        path.write_text("redis://me:new@h/1")
        assert file.credentials() == Credentials("me", "new")
        for content in (b"", b" \n", b"\xff", b"half", b"redis://[h"):
            path.write_bytes(content)
            assert file.credentials() == Credentials("me", "new")
        path.unlink()
        assert file.credentials() == Credentials("me", "new")
    assert caplog.messages[0] == f"{BROKER}: {path} has changed, and new connections use it"
    assert all("the last one is used" in message for message in caplog.messages[1:])
    for shown in (repr(file), repr(file.credentials()), caplog.text):
        assert "new@" not in shown
        assert "'new'" not in shown


def test_the_last_accepted_credentials_are_tried_after_the_files(path: Path, file: UrlFile) -> None:
    old, new, newer = (Credentials("me", password) for password in ("old", "new", "newer"))
    assert list(file.attempts()) == [old]
    file.accept(old)
    assert list(file.attempts()) == [old]
    path.write_text("redis://me:new@h/1")
    attempts = file.attempts()
    assert [next(attempts), next(attempts)] == [new, old]
    path.write_text("redis://me:newer@h/1")
    assert list(attempts) == [newer]
    file.accept(newer)
    assert list(file.attempts()) == [newer]


def test_settings_know_which_file_a_url_came_from(path: Path, tmp_path: Path) -> None:
    def settings(data: dict[str, object], **names: str) -> Settings:
        return Settings.from_mapping(data, environ=dict.fromkeys(names.values(), str(path)))

    shared = settings({}, broker=BROKER)
    assert shared.broker_file is not None
    assert shared.results_file is shared.broker_file
    assert "me:old" not in repr(shared)
    other = settings({"queue": {"result_backend": "redis://other"}}, broker=BROKER)
    assert (other.broker_file is None, other.results_file) == (False, None)
    own = settings({}, broker=BROKER, results="KVWORKER_RESULT_BACKEND_FILE")
    assert own.results_file is not own.broker_file
    assert settings({"queue": {"broker_url": "redis://h"}}, broker=BROKER).broker_file is None
    assert Settings.from_mapping({}, environ={"KVWORKER_BROKER_URL": "redis://h"}).broker_file is None
    path.write_text("postgresql://me:old@h/d")
    for name, setting in FALLBACKS.items():
        if setting[-1] == "url":
            config = settings({}, database=f"{name}_FILE").store.adapter_config("postgres")[1]
            assert isinstance(config["url_file"], UrlFile), name
            assert config["url"] == "postgresql://me:old@h/d"


def test_the_configuration_file_cannot_name_one() -> None:
    with pytest.raises(ConfigurationError, match="name the file with the variable ATLAS_KV_STORE_URL_FILE instead"):
        Settings.from_mapping({"tools": {"kv_store": {"adapters": {"postgres": {"url_file": "x"}}}}})
