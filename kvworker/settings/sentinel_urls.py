"""URLs of a Redis or Valkey that Sentinel watches: they name the Sentinels, which know where the primary is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from kvworker.settings.hosts import PERCENT_ENCODE, check_host, check_port
from kvworker.settings.url_files import UrlFile
from kvworker.settings.url_parameters import SENTINEL_PARAMETERS, without_parameters

SENTINEL_SCHEME: Final = "sentinel"
_DEFAULT_PORT: Final = "26379"
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:@/?#,;]+)(:(?P<port>[0-9]+))?")
#: kombu and Celery separate complete URLs by a semicolon.
_NEXT_URL = re.compile(rf";{SENTINEL_SCHEME}://", re.IGNORECASE)


@dataclass(frozen=True)
class SentinelAddress:
    """Where to ask for a primary.

    Attributes:
        hosts: The host and port of each Sentinel.
        master_name: The name by which the Sentinels know the primary.
        username: The user for the Sentinels themselves, which have no user or password by default.
        password: The password for the Sentinels themselves.
        url_file: The file that holds the URL, if there is one. Its user and password for the Sentinels are read again.
    """

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    url_file: UrlFile | None = field(default=None, compare=False)


def normalized_sentinel_url(rest: str) -> str:
    """Return a URL that lists its Sentinels with commas: ``sentinel://user:password@a:26379,b:26379/0?parameters``.

    Args:
        rest: The URL after ``sentinel://``, with the Sentinels in this form or as kombu's list of complete URLs.

    Raises:
        ValueError: It does not name Sentinels and a primary. The message shows no part of it.
    """
    locations, _, query = rest.partition("?")
    logins, hosts, databases = set[str](), list[str](), set[str]()
    for location in _NEXT_URL.split(locations):
        login, at, address = location.rpartition("@")
        listed, _, database = address.partition("/")
        hosts += (_normalized_host(host) for host in listed.split(","))
        logins |= {login + at} if login else set()
        databases |= {database.strip("/")} if database.strip("/") else set()
    if len(logins) > 1 or len(databases) > 1:
        raise ValueError("its Sentinels should lead to one primary: give user, password and database once")
    database = "".join(databases) or "0"
    if not re.fullmatch(r"[0-9]{1,9}", database):
        raise ValueError("its path should be the number of a Redis database, as in sentinel://host:26379/0")
    _check_parameters(query)
    return (
        f"{SENTINEL_SCHEME}://{_normalized_login(''.join(logins))}{','.join(dict.fromkeys(hosts))}/{database}?{query}"
    )


def sentinel_address(url: str, url_file: UrlFile | None = None) -> SentinelAddress | None:
    """Return where a normalized URL asks for its primary, or None if it names the server itself.

    Args:
        url: The URL.
        url_file: The file that holds it, if there is one.
    """
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return None
    given = dict(parse_qsl(parts.query))
    return SentinelAddress(
        tuple(_hosts_of(parts.netloc)),
        given["master_name"],
        given.get("sentinel_username"),
        given.get("sentinel_password"),
        url_file,
    )


def first_sentinel_url(url: str) -> str:
    """Return a normalized URL as kombu and Celery can read it: with one host, and without our own parameters."""
    scheme, _, rest = without_parameters(url, SENTINEL_PARAMETERS).partition("://")
    locations, slash, path = rest.partition("/")
    return f"{scheme}://{locations.partition(',')[0]}{slash}{path}"


def _normalized_host(host: str) -> str:
    found = _HOST.fullmatch(host)
    if found is None:
        raise ValueError(f"each Sentinel should be host:port, separated by commas; {PERCENT_ENCODE}")
    port = found["port"] or _DEFAULT_PORT
    check_port(port)
    check_host(found["name"].strip("[]"))
    return f"{found['name']}:{port}"


def _check_parameters(query: str) -> None:
    if _NEXT_URL.search(query):
        raise ValueError("give its parameters once, after the last Sentinel")
    master_name = dict(parse_qsl(query)).get("master_name")
    if master_name is None:
        raise ValueError("add ?master_name=NAME, the name that the Sentinels' configuration gives the primary")
    if not master_name.isprintable():
        raise ValueError("its master_name should hold no control characters")


def _normalized_login(login: str) -> str:
    if "/" in login or "@" in login[:-1]:
        raise ValueError(PERCENT_ENCODE)
    # Both separate hosts: here, and for kombu.
    return login.replace(",", "%2C").replace(";", "%3B")


def _hosts_of(netloc: str) -> Iterator[tuple[str, int]]:
    for host in netloc.rpartition("@")[2].split(","):
        name, _, port = host.rpartition(":")
        yield name.strip("[]"), int(port)
