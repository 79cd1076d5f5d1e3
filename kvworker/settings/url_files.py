"""Files that hold a URL with its password. Connections read them again, so that a password can be changed meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from kvworker.errors import ConfigurationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """A user and a password, where the URL has them."""

    username: str | None
    password: str | None = field(repr=False)

    @classmethod
    def of_url(cls, url: str) -> Credentials:
        """Return those of a URL: from its user part, or else from PostgreSQL's parameters.

        Raises:
            ValueError: The URL cannot be read. The message shows no part of it.
        """
        try:
            parts = urlsplit(url)
            given = dict(parse_qsl(parts.query))
            username, password = parts.username, parts.password
        except ValueError:
            raise ValueError("it is not a URL") from None
        if not parts.scheme:
            raise ValueError("it is not a URL")
        return cls(
            given.get("user") if username is None else unquote(username) or None,
            given.get("password") if password is None else unquote(password) or None,
        )


def read_secret_file(variable: str, file: Path) -> str:
    """Return what a file holds, without surrounding white space.

    Raises:
        ConfigurationError: It cannot be read, or is empty. The message names the variable.
    """
    try:
        secret = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{variable}: cannot read {str(file)!r}: {reason}") from error
    if not secret:
        raise ConfigurationError(f"{variable}: the file {str(file)!r} is empty")
    return secret


class UrlFile:
    """A file that a variable names, such as ``KVWORKER_BROKER_URL_FILE``. Thread-safe.

    Only its user and password are read again. All else in the URL counts from the start of the process.

    Args:
        variable: The variable, for messages.
        path: The file.
        url: The content of the file when the configuration was loaded.
    """

    def __init__(self, variable: str, path: Path, url: str) -> None:
        self._variable = variable
        self._path = path
        self._url = url
        self._accepted: Credentials | None = None

    def url(self) -> str:
        """Return what the file holds now. If it cannot be read, such as while it is replaced, return the last URL."""
        try:
            url = read_secret_file(self._variable, self._path)
            Credentials.of_url(url)
        except (ConfigurationError, ValueError) as error:
            logger.warning("%s; the last one is used: %s", self._variable, error)
            return self._url
        if url != self._url:
            logger.info("%s: %s has changed, and new connections use it", self._variable, self._path)
            self._url = url
        return url

    def credentials(self) -> Credentials:
        """Return the user and the password that the file holds now."""
        return Credentials.of_url(self.url())

    def attempts(self) -> Iterator[Credentials]:
        """Yield the credentials to try in turn, until the caller reports one to ``accept``.

        The file's come first, then the last that a server accepted: so the file may be changed before the server's
        password. Then the file's again, since both may have been changed in between.
        """
        first = self.credentials()
        yield first
        accepted = self._accepted
        if accepted is not None and accepted != first:
            yield accepted
            yield self.credentials()

    def accept(self, credentials: Credentials) -> None:
        """Note that a server has accepted credentials."""
        self._accepted = credentials

    def __repr__(self) -> str:
        # Without the URL. It is also part of the key of kombu's pools.
        return f"UrlFile({self._variable}={str(self._path)!r})"
