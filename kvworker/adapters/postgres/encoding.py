"""Refuses an encoding that cannot hold every JSON value."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from kvworker.errors import ConfigurationError

#: PgBouncer reports the client's encoding as the client wrote it.
_UTF8: Final = {"UTF8", "UTF_8", "UNICODE"}


def check_encoding(connection: psycopg.Connection[Any]) -> None:
    """Check the encodings of the database and of the connection, which the server reported when it was opened.

    Raises:
        ConfigurationError: one of them is not UTF-8.
    """
    server = connection.info.parameter_status("server_encoding")
    if not _is_utf8(server):
        raise ConfigurationError(
            f"the database's encoding is {server}, which cannot hold every JSON value; make one with ENCODING 'UTF8'"
        )
    client = connection.info.parameter_status("client_encoding")
    if not _is_utf8(client):
        # The adapter's own connections always use UTF-8.
        raise ConfigurationError(
            f"the client_encoding of the conversation store's connections is {client}, which cannot hold every JSON"
            " value; connect with client_encoding=utf8, or give the adapter its own url"
        )


def _is_utf8(encoding: str | None) -> bool:
    return encoding is not None and encoding.upper().replace("-", "_") in _UTF8
