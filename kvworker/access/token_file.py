"""Reads a file of tokens. It is read again when it changes, so that a revoked token ends without a restart."""

from __future__ import annotations

import hmac
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import ValidationError

from kvworker.access.grants import Grant, hash_of, is_token
from kvworker.errors import ConfigurationError
from kvworker.settings.private_paths import check_owner
from kvworker.settings.problems import problem_lines

#: A file that changed this recently may change again without another time stamp or size. It is read again each time.
_UNSETTLED_SECONDS: Final = 2.0
_MAX_BYTES: Final = 16 * 1024 * 1024

_Version: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class _Content:
    grants: Mapping[str, Grant]
    version: _Version
    is_settled: bool


class TokenFile:
    """The tokens of a file: one JSON object on each line. Blank lines and lines that begin with ``#`` count as nothing.

    No token is accepted while the file cannot be read, has a wrong line, or could have been written by another user: it
    may just have revoked one. Thread-safe.

    Args:
        path: The file. It may be a symbolic link, as Kubernetes mounts secrets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: _Content | None = None

    def find(self, token: str) -> Grant | None:
        """Return what a token grants, or None if it is unknown, revoked or expired.

        Raises:
            ConfigurationError: The file is missing or wrong; see ``grants``.
        """
        grants = self._read().grants
        if not is_token(token):
            return None
        token_hash = hash_of(token)
        grant = grants.get(token_hash)
        # The time of the look-up tells nothing: a client cannot choose what its token's hash begins with, and a hash
        # does not lead back to a token.
        if grant is None or not hmac.compare_digest(grant.token_sha256, token_hash) or grant.has_expired:
            return None
        return grant

    def grants(self) -> tuple[Grant, ...]:
        """Return all grants in the file's order, expired ones too.

        Raises:
            ConfigurationError: The file is missing or has a wrong line, or another user could have written it. The
                message names the line and shows no hash.
        """
        return tuple(self._read().grants.values())

    def _read(self) -> _Content:
        content = self._content
        try:
            if content is None or not content.is_settled or content.version != _version_of(self.path.stat()):
                content = self._content = self._load()
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            advice = "make one with `kvworker tokens create`" if is_missing else "let this user read it"
            raise ConfigurationError(f"cannot read the tokens in {self.path}: {error.strerror}; {advice}") from error
        return content

    def _load(self) -> _Content:
        text, found = read_tokens(self.path)
        age_seconds = time.time() - max(found.st_mtime, found.st_ctime)
        return _Content(parse_tokens(self.path, text), _version_of(found), age_seconds > _UNSETTLED_SECONDS)


def read_tokens(path: Path) -> tuple[bytes, os.stat_result]:
    """Return the text of a file of tokens, and what the system says about the file.

    Raises:
        ConfigurationError: Another user could have written it, or it is no file, or too large.
        OSError: It cannot be read.
    """
    # Another user who owns the link chooses the file.
    check_owner(path, path.lstat())
    # A named pipe would block until somebody writes into it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
        found = os.fstat(file.fileno())
        check_owner(path, found)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{path} is not a file")
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {_MAX_BYTES:,} bytes")
    return text, found


def parse_tokens(path: Path, text: bytes) -> dict[str, Grant]:
    """Return the grants of a file's text by the hashes of their tokens, in the file's order.

    Raises:
        ConfigurationError: A line is wrong, or two have the same name or hash.
    """
    grants: dict[str, Grant] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if is_grant(line):
            grant = _grant_of(f"{path}, line {number}", line)
            first = lines.setdefault(grant.name, number)
            if first != number:
                raise ConfigurationError(
                    f"{path}, line {number}: line {first} is also named {grant.name!r}; remove one of them"
                )
            if grant.token_sha256 in grants:
                other = grants[grant.token_sha256].name
                raise ConfigurationError(f"{path}, line {number}: it has the token of {other!r}; remove one of them")
            grants[grant.token_sha256] = grant
    return grants


def is_grant(line: bytes) -> bool:
    """True if a line of a file is neither blank nor a comment."""
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def _grant_of(place: str, line: bytes) -> Grant:
    try:
        return Grant.model_validate_json(line)
    except ValidationError as error:
        # Not the parser's own message: it quotes the line.
        if not error.errors()[0]["loc"]:
            raise ConfigurationError(
                f"{place}: it is not a JSON object; correct or remove it, or make tokens with `kvworker tokens create`"
            ) from None
        raise ConfigurationError(f"{place}: {'; '.join(problem_lines('', error, Grant))}") from None


def _version_of(found: os.stat_result) -> _Version:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
