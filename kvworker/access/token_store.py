"""Adds tokens to a file and removes them from it. Its readers never see a file that is half written."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from kvworker.access.grants import Grant, hash_of, new_token
from kvworker.access.token_file import TokenFile, is_grant, parse_tokens, read_tokens
from kvworker.errors import ConfigurationError
from kvworker.settings.private_paths import check_owner, check_private
from kvworker.settings.problems import translated

#: How long a command waits for others that change the file.
LOCK_SECONDS: float = 10
_PAUSE_SECONDS: Final = 0.02
_HEADER = b"# Access tokens of kvworker, as hashes. Add and remove them with `kvworker tokens`.\n"


class TokenStore:
    """A file of tokens, for the commands that change it. Two of them at a time wait for each other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def grants(self) -> tuple[Grant, ...]:
        """Return all grants in the file's order, expired ones too.

        Raises:
            ConfigurationError: The file is missing or wrong.
        """
        return TokenFile(self.path).grants()

    def create(
        self, name: str, *, persona: str | None, namespace_prefix: str | None, expires_at: datetime | None
    ) -> str:
        """Add a new token and return it. It cannot be shown again.

        Raises:
            ConfigurationError: The name is taken or invalid, or so is the prefix, or the file is wrong.
        """
        token = new_token()
        with translated("the token", Grant):
            grant = Grant.model_validate(
                {
                    "name": name,
                    "persona": persona,
                    "namespace_prefix": namespace_prefix,
                    "expires_at": expires_at,
                    "token_sha256": hash_of(token),
                }
            )
        with self._locked():
            text = self._text()
            if any(other.name == name for other in parse_tokens(self.path, text).values()):
                raise ConfigurationError(
                    f"{self.path} has a token named {name!r}; revoke it first, or use another name"
                )
            line = grant.model_dump_json(exclude_none=True).encode()
            self._replace([*(text or _HEADER).splitlines(), line])
        return token

    def revoke(self, name: str) -> None:
        """Remove a token. Servers that read the file refuse it from then on.

        Raises:
            ConfigurationError: The file does not hold this token, or is invalid.
        """
        with self._locked():
            text = self._text()
            names = [grant.name for grant in parse_tokens(self.path, text).values()]
            if name not in names:
                raise ConfigurationError(
                    f"{self.path} has no token named {name!r}; it has {', '.join(names) or 'none'}"
                )
            order = iter(names)
            self._replace([line for line in text.splitlines() if not is_grant(line) or next(order) != name])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other commands from changing the file.

        The lock is a file of its own, since the file of tokens is replaced. Other users cannot open it: whoever can
        open a file can lock it, and so keep a token from being revoked.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            check_owner(lock, os.fstat(descriptor))
            _lock(descriptor, lock)
            yield
        finally:
            os.close(descriptor)

    def _text(self) -> bytes:
        try:
            check_private(self.path, instead="name another file")
            return read_tokens(self.path)[0]
        except FileNotFoundError:
            return b""

    def _keep_readers(self, descriptor: int) -> None:
        """Give a new file the owner and the readers of the old one: the server may run as another user than we."""
        with suppress(FileNotFoundError, PermissionError):
            old = self.path.stat()
            os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR | (old.st_mode & (stat.S_IRGRP | stat.S_IROTH)))

    def _replace(self, lines: list[bytes]) -> None:
        descriptor, name = tempfile.mkstemp(prefix=".kvworker-", suffix=".part", dir=self.path.parent)
        unfinished = Path(name)
        try:
            # mkstemp has made it readable for its owner alone.
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                self._keep_readers(descriptor)
                file.write(b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(descriptor)
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)


def _lock(descriptor: int, path: Path) -> None:
    give_up_at = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise ConfigurationError(
                    f"another process has held {path} for {LOCK_SECONDS:g} s; find it with `fuser {path}`"
                ) from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return
