"""The parameters after a URL's question mark: which of them reach the broker or the database, and with which type.

kombu, Celery and SQLAlchemy each fail late, or ignore a parameter, if it is unknown or its value has another type. So
every other parameter is refused at load, by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

# The values of ssl_cert_reqs in a TLS URL that kombu and Celery understand.
_CERT_REQS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")
_DIGITS = re.compile(r"[0-9]{1,9}")


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        """Return the value, which is one of the choices."""
        if value not in choices:
            raise ValueError(f"should be {', '.join(choices[:-1])} or {choices[-1]}")
        return value

    return check


def _whole_number(value: str) -> int:
    if not _DIGITS.fullmatch(value):
        raise ValueError("should be a whole number, written in digits")
    return int(value)


def _protocol(value: str) -> int:
    return int(_one_of("2", "3")(value))


def _file(path: str) -> str:
    try:
        is_file = Path(path).is_file()
    except OSError:  # a directory on the path is not accessible
        is_file = False
    if not is_file:
        raise ValueError(f"is not an existing file: {path}")
    return path


def _text(value: str) -> str:
    if not value:
        raise ValueError("should have a value")
    return value


_Parsers = Mapping[str, Callable[[str], Any]]

#: Parameters of a connection to Redis that kombu would pass on untyped, or not at all.
REDIS_CONNECTION_PARAMETERS: _Parsers = {
    "protocol": _protocol,
    **dict.fromkeys(("client_name", "username", "password"), _text),
}
#: Parameters of TLS, which AMQP's client library knows by other names.
TLS_PARAMETERS: _Parsers = {
    "ssl_cert_reqs": _one_of(*_CERT_REQS),
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}

#: Parameters that say which primary to ask the Sentinels for, and how.
SENTINEL_PARAMETERS: _Parsers = dict.fromkeys(("master_name", "sentinel_username", "sentinel_password"), _text)

_REDIS: _Parsers = {"protocol": _protocol, "client_name": _text, "credential_provider": _text}
_AMQP: _Parsers = {"heartbeat": _whole_number, "login_method": _text}

_QUEUE: Mapping[str, _Parsers] = {
    "redis": _REDIS,
    "rediss": {**_REDIS, **TLS_PARAMETERS, "ssl_check_hostname": _one_of("true", "false"), "ssl_password": _text},
    "sentinel": {**_REDIS, **SENTINEL_PARAMETERS},
    "redis+socket": {**_REDIS, "virtual_host": _whole_number, "username": _text, "password": _text},
    "amqp": _AMQP,
    "pyamqp": _AMQP,
    "amqps": {**_AMQP, **TLS_PARAMETERS},
}
_SQLITE: _Parsers = {
    "uri": _one_of("true", "1", "yes", "on"),
    "mode": _one_of("ro", "rw", "rwc", "memory"),
    "cache": _one_of("shared", "private"),
    "immutable": _text,
    "nolock": _text,
    "psow": _text,
    "vfs": _text,
}

#: The replacement of a parameter that other programs take.
_INSTEAD = {
    **dict.fromkeys(
        ("socket_timeout", "socket_connect_timeout", "connect_timeout", "connection_timeout"),
        "set queue.connect_timeout_seconds",
    ),
    "visibility_timeout": "set queue.visibility_timeout_seconds",
    "db": "write the number as the path, as in redis://host:6379/2",
    "virtual_host": "write the number as the path, as in redis://host:6379/2",
    **dict.fromkeys(("username", "password"), "write scheme://user:password@host"),
    "timeout": "set busy_timeout_seconds beside the url",
}


def check_queue_parameters(scheme: str, url: str) -> None:
    """Check the parameters of a broker's or a result backend's URL.

    Raises:
        ValueError: One is unknown, or its value is impossible. Its value is not shown.
    """
    if any(name.startswith("ssl_") for name, _ in _given(url)) and "ssl_cert_reqs" not in _QUEUE[scheme]:
        if scheme == "sentinel":
            raise ValueError(
                "its ssl_ parameters need TLS, which is not supported with sentinel://; use a tunnel, or rediss://"
            )
        raise ValueError("its ssl_ parameters need TLS: write rediss:// or amqps://")
    _parsed(url, _QUEUE[scheme])


def sqlite_url_problem(url: str) -> str | None:
    """Return why a SQLite URL cannot be used, or None."""
    path = url.partition("://")[2].partition("?")[0]
    if path and not path.startswith("/"):
        return (
            "a relative path starts after three slashes and an absolute one after four: sqlite:///kv.sqlite or"
            " sqlite:////var/lib/kv.sqlite"
        )
    try:
        given = _parsed(url, _SQLITE)
    except ValueError as error:
        return str(error)
    is_file_uri = path.startswith("/file:")
    if (given or is_file_uri) and not (is_file_uri and "uri" in given):
        return "SQLite's own parameters need both file: and uri=true, as in sqlite:///file:kv.sqlite?mode=rw&uri=true"
    return None


def redis_connection_parameters(url: str) -> dict[str, Any]:
    """Return the typed values of a URL's ``REDIS_CONNECTION_PARAMETERS``."""
    return {
        name: REDIS_CONNECTION_PARAMETERS[name](value)
        for name, value in parse_qsl(urlsplit(url).query)
        if name in REDIS_CONNECTION_PARAMETERS
    }


def tls_parameters(url: str) -> dict[str, str]:
    """Return the ``ssl_*`` parameters of a URL."""
    return {name: value for name, value in parse_qsl(urlsplit(url).query) if name in TLS_PARAMETERS}


def without_parameters(url: str, names: _Parsers) -> str:
    """Remove parameters from a URL."""
    others = [(name, value) for name, value in parse_qsl(urlsplit(url).query) if name not in names]
    return url.partition("?")[0] + ("?" + urlencode(others) if others else "")


def _given(url: str) -> list[tuple[str, str]]:
    return parse_qsl(url.partition("?")[2].partition("#")[0], keep_blank_values=True)


def _parsed(url: str, known: _Parsers) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    if "#" in url:
        raise ValueError("it should not hold a #; write one in a parameter as %23")
    for name, value in _given(url):
        if name not in known:
            # The name may be the rest of a password with a question mark in it.
            shown = "a parameter" if "@" in url.partition("?")[2] else f"the parameter {name!r}"
            advice = f"; {_INSTEAD[name]} instead" if name in _INSTEAD else ""
            raise ValueError(f"{shown} is not supported here{advice}; known are {', '.join(known)}")
        if name in parsed:
            raise ValueError(f"its parameter {name} is given twice; remove one")
        try:
            parsed[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"its parameter {name} {error}") from None
    return parsed
