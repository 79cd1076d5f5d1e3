"""A configuration file that cannot be read says where and why, and shows no value."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n", "the top level should be a mapping (key: value), not a list"),
        ("just text", "the top level should be a mapping (key: value), not a str"),
        ("queue: {broker_url: 'redis://:hidden@h\n", "line 2"),
        ("queue:\n  a: redis://:hidden@h\n b: 1\n", "line 3, column 2: "),
        (
            "policies:\n  signing_key: *S3cretThat",
            "column 16: found undefined alias (not shown; put it in quotes)",
        ),
        ("queue:\n  broker_url: !S3cretThat x", "for the tag (not shown; put it in quotes)"),
        ("facade: 1\nqueue: {}\nqueue: {}\n", "line 3, column 1: the key 'queue' is given twice; remove one"),
        ("tools:\n  kv_store: {default_adapter: a, default_adapter: b}", "the key 'default_adapter' is given twice"),
        ("queue: [\n  password: S3cretThat\n", "expected ',' or ']', but got '<stream end>'"),
        ("a: !include x", "could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: 2025-13-45", "put it in quotes"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: \x00", "not UTF-8 text"),
    ],
)
def test_bad_yaml_is_located_but_not_quoted(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(path, environ={})
    message = str(caught.value)
    assert str(path) in message
    assert part in message
    assert "hidden" not in message
    assert "\n" not in message


def test_merge_keys_are_not_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("base: &b {sender_threads: 2}\nfacade:\n  <<: *b\n  sender_threads: 3\n")
    assert Settings.load(path, environ={}).facade.sender_threads == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yaml", "No such file"), (".", "Is a directory"), ("file/below", "Not a directory"), ("a\0b", "null")],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=rf"^config file: cannot read .*{reason}"):
        Settings.load(tmp_path / name, environ={})


def test_a_missing_file_named_by_the_variable_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^KVWORKER_CONFIG: cannot read"):
        Settings.load(environ={"KVWORKER_CONFIG": str(tmp_path / "missing.yaml")})


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigurationError, match="not UTF-8 text"):
        Settings.load(path, environ={})
