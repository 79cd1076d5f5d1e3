"""A file of tokens: its content, its owner and mode, when it is read again, and refused files."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kvworker.access import TokenFile, TokenStore, token_store
from kvworker.errors import ConfigurationError

HASH = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "tokens"


@pytest.fixture
def store(path: Path) -> TokenStore:
    return TokenStore(path)


def create(store: TokenStore, name: str = "agent", **grant: Any) -> str:
    return store.create(name, **{"persona": None, "namespace_prefix": None, "expires_at": None, **grant})


def line(**values: Any) -> str:
    return json.dumps({"name": "agent", "token_sha256": HASH, **values})


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in lines))
    path.chmod(0o600)


def test_a_token_has_what_it_was_created_with_and_its_file_holds_no_token(path: Path, store: TokenStore) -> None:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    token = create(store, persona="reader", namespace_prefix="team-a", expires_at=expires_at)
    other = create(store, "other")
    tokens = TokenFile(path)
    grant = tokens.find(token)
    assert grant is not None
    assert (grant.name, grant.persona, grant.namespace_prefix, grant.expires_at) == (
        "agent",
        "reader",
        "team-a",
        expires_at,
    )
    assert grant.token_sha256 not in repr(grant)
    assert [each.name for each in tokens.grants()] == ["agent", "other"]
    assert token not in path.read_text()
    assert other not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(path.parent)) == [".tokens.lock", "tokens"]  # noqa: PTH208 - hidden files count


@pytest.mark.parametrize(
    "text",
    ["", "kvw_", "kvw_" + "a" * 43, "kvw_" + "ä" * 43, "kvw_" + "a" * 42 + "\n", "\udcff", "x" * 100_000, "kvw_\x00"],
)
def test_other_texts_are_no_tokens(path: Path, store: TokenStore, text: str) -> None:
    token = create(store)
    tokens = TokenFile(path)
    for unknown in (text, token + text, token[:-1] + text, token.upper()):
        assert unknown == token or tokens.find(unknown) is None
    assert tokens.find(token) is not None


def test_an_expired_token_is_refused_and_still_listed(path: Path, store: TokenStore) -> None:
    token = create(store, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert TokenFile(path).find(token) is None
    assert [grant.has_expired for grant in store.grants()] == [True]


def test_a_change_counts_at_once(path: Path, store: TokenStore) -> None:
    first, tokens = create(store), TokenFile(path)
    assert tokens.find(first) is not None
    second = create(store, "second")
    assert tokens.find(second) is not None
    store.revoke("agent")
    assert (tokens.find(first), tokens.find(second) is not None) == (None, True)
    # Written in place, in the same moment, with the same size.
    path.write_bytes(path.read_bytes().replace(b"second", b"zecond"))
    assert [grant.name for grant in tokens.grants()] == ["zecond"]
    path.unlink()
    with pytest.raises(ConfigurationError, match="kvworker tokens create"):
        tokens.find(second)


def test_a_file_that_did_not_change_is_not_read_again(
    path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, tokens = create(store), TokenFile(path)
    monkeypatch.setattr("kvworker.access.token_file.time.time", lambda: path.stat().st_ctime + 10)
    assert tokens.find(token) is not None
    monkeypatch.setattr("kvworker.access.token_file.os.open", None)
    assert tokens.find(token) is not None


def test_comments_and_order_survive_a_change(path: Path, store: TokenStore) -> None:
    write(path, "# the team's", line(), "", "  # the next", line(name="other", token_sha256="cd" * 32))
    create(store, "new")
    store.revoke("agent")
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# the team's", "", "  # the next"]
    assert [json.loads(text)["name"] for text in lines[3:]] == ["other", "new"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "it is not a JSON object"),
        ("[" * 100_000, "it is not a JSON object"),
        ("{", "it is not a JSON object"),
        ("[]", "it is not a JSON object"),
        ("7", "it is not a JSON object"),
        ("{}", "name: field required"),
        (line(name="a b"), "name: string should match pattern"),
        (line(name="x" * 65), "name: string should match pattern"),
        (line(name=7), "name: it should be text"),
        (line(token_sha256="kvw_" + "a" * 43), "token_sha256: string should match pattern"),
        (line(token_sha256=HASH.upper()), "token_sha256: string should match pattern"),
        (line(namespace_prefix="a/b"), "namespace_prefix: a namespace prefix must not hold '/'"),
        (
            line(namespace_prefix=""),
            "namespace_prefix: a namespace prefix must also be a valid namespace: namespace must",
        ),
        (
            line(namespace_prefix=" "),
            "namespace_prefix: a namespace prefix must also be a valid namespace: namespace must",
        ),
        (line(persona=""), "persona: a persona's name must not be blank"),
        (line(persona="\t"), "persona: a persona's name must not be blank"),
        (line(expires_at=""), "expires_at: it should be a valid datetime"),
        (line(expires_at="2027-01-01T00:00:00"), "expires_at: it should have timezone info"),
        (line(expires_at="soon"), "expires_at: it should be a valid datetime"),
        (line(personas="reader"), "personas: unknown key; did you mean persona?"),
        (line(name="one"), "it has the token of 'other'"),
        (line(name="other", token_sha256="cd" * 32), "line 2 is also named 'other'"),
    ],
)
def test_one_error_names_a_wrong_line_and_shows_no_hash(path: Path, text: str, problem: str) -> None:
    write(path, "# tokens", line(name="other"), text)
    for read in (TokenFile(path).grants, lambda: create(TokenStore(path), "new")):
        with pytest.raises(ConfigurationError) as raised:
            read()
        assert str(raised.value).startswith(f"{path}, line 3: {problem}")
        assert "\n" not in str(raised.value)
        assert HASH not in str(raised.value).lower()
        assert "kvw_" not in str(raised.value)


def writable_for_others(path: Path) -> None:
    path.chmod(0o602)


def writable_for_the_group(path: Path) -> None:
    path.chmod(0o620)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def too_large(path: Path) -> None:
    path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))


@pytest.mark.parametrize("spoil", [writable_for_others, writable_for_the_group, a_directory, a_pipe, too_large])
def test_no_token_counts_while_the_file_cannot_be_trusted(
    path: Path, store: TokenStore, spoil: Callable[[Path], None]
) -> None:
    token = create(store)
    tokens = TokenFile(path)
    assert tokens.find(token) is not None
    spoil(path)
    with pytest.raises(ConfigurationError, match=str(path)):
        tokens.find(token)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_and_a_link_of_another_user_are_refused(path: Path, store: TokenStore, *, is_link: bool) -> None:
    token = create(store)
    named = path
    if is_link:
        named = path.with_name("link")
        named.symlink_to(path)
        assert TokenFile(named).find(token) is not None
    os.chown(named, 54321, -1, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        TokenFile(named).find(token)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_change_by_root_leaves_the_file_to_the_servers_user(path: Path, store: TokenStore) -> None:
    create(store)
    os.chown(path, 0, 54321)
    path.chmod(0o640)
    create(store, "second")
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 54321, 0o640)


def test_a_link_can_be_read_and_followed_but_not_replaced(path: Path, store: TokenStore) -> None:
    """Kubernetes mounts a secret as a link, and changes where it leads."""
    first, link = create(store), path.with_name("link")
    link.symlink_to(path)
    tokens = TokenFile(link)
    assert tokens.find(first) is not None
    second = create(TokenStore(path.with_name("next")), "second")
    path.with_name("new-link").symlink_to(path.with_name("next"))
    path.with_name("new-link").replace(link)
    assert (tokens.find(first), tokens.find(second) is not None) == (None, True)
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        create(TokenStore(link))


def test_commands_at_the_same_time_lose_no_token_and_readers_see_whole_files(path: Path, store: TokenStore) -> None:
    first, tokens, made, errors = create(store), TokenFile(path), list[str](), list[BaseException]()
    is_done = threading.Event()

    def work(number: int) -> None:
        for step in range(10):
            made.append(create(TokenStore(path), f"{number}-{step}"))

    def read() -> None:
        while not is_done.is_set():
            try:
                assert tokens.find(first) is not None
            except BaseException as error:  # noqa: BLE001 - the test reports it
                errors.append(error)
                return

    writers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_done.set()
    reader.join()
    assert not errors
    assert len(tokens.grants()) == 41
    assert all(tokens.find(token) for token in made)


def test_another_user_cannot_keep_a_token_from_being_revoked(path: Path, store: TokenStore) -> None:
    """Whoever can read a directory can lock it, so the lock must be a file that others cannot read."""
    create(store)
    path.parent.chmod(0o755)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        revoking = threading.Thread(target=store.revoke, args=("agent",), daemon=True)
        revoking.start()
        revoking.join(60)
        assert not revoking.is_alive()
    finally:
        os.close(descriptor)
    assert store.grants() == ()
    shared = [file.name for file in path.parent.iterdir() if file.stat().st_mode & 0o077]
    assert shared == []


def test_a_command_does_not_wait_forever_for_another(
    path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    monkeypatch.setattr(token_store, "LOCK_SECONDS", 0.1)
    lock = path.with_name(f".{path.name}.lock")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another process has held"):
            store.revoke("agent")
    store.revoke("agent")


def test_a_named_pipe_is_no_file_of_tokens(path: Path, store: TokenStore) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError, match="is not a file"):
        create(store)


def test_a_taken_and_an_unknown_name_are_refused(store: TokenStore) -> None:
    create(store)
    with pytest.raises(ConfigurationError, match="has a token named 'agent'"):
        create(store)
    with pytest.raises(ConfigurationError, match="has no token named 'other'; it has agent"):
        store.revoke("other")
