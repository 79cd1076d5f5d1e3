"""Credentials of Redis connections that are read again from their file at each connect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.credentials import CredentialProvider

from kvworker.settings.url_files import UrlFile

#: redis-py types it only in part.
_CredentialProvider: Any = CredentialProvider


class FileCredentials(_CredentialProvider):
    """The user and the password of the URL in a file."""

    def __init__(self, file: UrlFile) -> None:
        self._file = file

    def get_credentials(self) -> tuple[str, ...]:
        """Return the password, after the user if there is one; nothing if the URL has no password."""
        found = self._file.credentials()
        return _for_redis(found.username, found.password)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._file!r})"


class SentinelFileCredentials(FileCredentials):
    """The user and the password for the Sentinels themselves, which are parameters of the URL in a file."""

    def get_credentials(self) -> tuple[str, ...]:
        """Return the password, after the user if there is one; nothing if the URL has no password for Sentinels."""
        given = dict(parse_qsl(urlsplit(self._file.url()).query))
        return _for_redis(given.get("sentinel_username"), given.get("sentinel_password"))


def login_parameters(parameters: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a connection with further ones. redis-py takes credentials either plain or by a provider."""
    if "credential_provider" in more:
        parameters = {name: value for name, value in parameters.items() if name not in {"username", "password"}}
    return {**parameters, **more}


def _for_redis(username: str | None, password: str | None) -> tuple[str, ...]:
    if password is None:
        return ()
    return (password,) if username is None else (username, password)
