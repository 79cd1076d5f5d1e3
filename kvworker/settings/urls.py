"""Checks the URLs of brokers, result backends and databases, and masks passwords in URLs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from kvworker.settings.hosts import PERCENT_ENCODE, check_host, check_port
from kvworker.settings.sentinel_urls import SENTINEL_SCHEME, normalized_sentinel_url
from kvworker.settings.url_parameters import check_queue_parameters, sqlite_url_problem, tls_parameters

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", SENTINEL_SCHEME)
_TLS_SCHEMES = ("rediss", "amqps")
BROKER_SCHEMES = (*REDIS_SCHEMES, "amqp", "amqps", "pyamqp")

DATABASE_URL_EXAMPLES = {
    "postgres": "postgresql+psycopg://user@host:5432/database",
    "sqlite": "sqlite:///path/to/kv.sqlite",
}

_DATABASE_URLS = {
    "postgres": re.compile(r"postgres(ql)?(\+psycopg)?://"),
    "sqlite": re.compile(r"sqlite(\+pysqlite)?://"),
}
_VALKEY_ALIASES = {"valkey": "redis", "valkeys": "rediss", "valkey+socket": "redis+socket"}
# sizeof(sun_path) of the kernel's sockaddr_un, less a byte for the NUL: 108 on Linux, 104 on macOS and the BSDs.
MAX_SOCKET_PATH_BYTES = (108 if sys.platform == "linux" else 104) - 1
# Matches up to the last @ of the text, so that a password with an unescaped / or ? or @ is masked too.
_USER_INFO = re.compile(r"://([^:@]*):.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(
    r"([\w.]*(?:passw(?:or)?d|passphrase|pwd|secret|token|credential)\w*\s*=\s*)('[^']*'|[^&\s]*)", re.IGNORECASE
)


def server_of(url: str) -> str:
    """Return which server a URL of a broker or of results names: its hosts and ports, or the path of its socket."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def redacted_url(url: str) -> str:
    """Mask every password in a URL, in the user part and in parameters, for logs and messages."""
    return _SECRET_PARAMETER.sub(r"\1***", _USER_INFO.sub(r"://\1:***@", url))


def queue_url(url: str, schemes: tuple[str, ...]) -> str:
    """Normalize a URL: Valkey's schemes become Redis's, a socket's path absolute, and a list of Sentinels has commas.

    Raises:
        ValueError: The scheme is not one of ``schemes``, or the rest is invalid. The message does not contain the
            URL, which may contain a password.
    """
    scheme, separator, rest = url.partition("://")
    scheme = _VALKEY_ALIASES.get(scheme.lower(), scheme.lower())
    if not separator or scheme not in schemes:
        raise ValueError(f"it should be a URL that starts with {_listed(schemes)}")
    if re.search(r"\s", rest):
        raise ValueError("it should not hold white space; write a space as %20")
    if scheme not in {"redis+socket", SENTINEL_SCHEME}:
        _check_address(scheme, rest)
    check_queue_parameters(scheme, f"{scheme}://{rest}")
    if scheme == "redis+socket":
        return f"{scheme}://{_absolute_socket(rest)}"
    if scheme == SENTINEL_SCHEME:
        return normalized_sentinel_url(rest)
    return _with_verification(scheme, f"{scheme}://{rest}")


def database_url_problem(adapter: str, url: str) -> str | None:
    """Return why a bundled adapter cannot use a URL, or None. The text does not contain the URL and its password."""
    if _DATABASE_URLS[adapter].match(url):
        return sqlite_url_problem(url) if adapter == "sqlite" else None
    return f"it should be a URL like {DATABASE_URL_EXAMPLES[adapter]} (the current value is not shown)"


def messaging_system(broker_url: str) -> str:
    """Return a broker's name in traces, by OpenTelemetry's conventions."""
    return "redis" if speaks_redis(broker_url) else "rabbitmq"


def speaks_redis(url: str) -> bool:
    """Return whether the URL is a Redis or Valkey server's, which can also keep results."""
    return urlsplit(url).scheme in REDIS_SCHEMES


def _absolute_socket(rest: str) -> str:
    path, question_mark, query = rest.partition("?")
    if not path.strip("/"):
        raise ValueError("it should name the socket's file: redis+socket:///path/to/valkey.sock")
    if not path.startswith("/"):
        if "@" in path:
            # Errors of a connection show the path.
            raise ValueError(
                "a socket's URL takes user and password as parameters:"
                " redis+socket:///path/to/valkey.sock?username=USER&password=PASSWORD"
            )
        path = quote(str(Path.cwd())).rstrip("/") + "/" + path
    if len(unquote(path).encode()) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"a socket's path should be at most {MAX_SOCKET_PATH_BYTES} bytes long, made absolute; use a shorter one"
        )
    return path + question_mark + query


def _check_address(scheme: str, rest: str) -> None:
    unreadable = ValueError(f"its host and port cannot be read; {PERCENT_ENCODE}")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:
        raise unreadable from None
    address = parts.netloc.rpartition("@")[2]
    port = address.rpartition("]")[2].partition(":")[2]
    if "@" in parts.path or not (port.isdecimal() or not port):
        raise unreadable
    if port:
        check_port(port)
    check_host(parts.hostname or "")
    if scheme in REDIS_SCHEMES and not re.fullmatch(r"[0-9]{0,9}", parts.path.strip("/")):
        raise ValueError(f"its path should be the number of a Redis database, as in {scheme}://host:6379/0")


def _with_verification(scheme: str, url: str) -> str:
    """Have a TLS URL verify the server's certificate unless it says otherwise.

    Without ``ssl_cert_reqs`` kombu verifies nothing, and Celery's result backend does not start.
    """
    if scheme not in _TLS_SCHEMES or "ssl_cert_reqs" in tls_parameters(url):
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}ssl_cert_reqs=required"


def _listed(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes[:-1]) + f" or {schemes[-1]}://"
