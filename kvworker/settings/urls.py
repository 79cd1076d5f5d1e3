"""Checks the URLs of brokers, result backends and databases, and masks passwords in URLs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

REDIS_SCHEMES = ("redis", "rediss", "redis+socket")
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
# The values of ssl_cert_reqs in a TLS URL that kombu and Celery understand.
_CERT_REQS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# sizeof(sun_path) of the kernel's sockaddr_un, less a byte for the NUL: 108 on Linux, 104 on macOS and the BSDs.
MAX_SOCKET_PATH_BYTES = (108 if sys.platform == "linux" else 104) - 1
# Matches up to the last @ of the text, so that a password with an unescaped / or ? or @ is masked too.
_USER_INFO = re.compile(r"://([^:@]*):.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(
    r"([\w.]*(?:passw(?:or)?d|passphrase|pwd|secret|token|credential)\w*\s*=\s*)('[^']*'|[^&\s]*)", re.IGNORECASE
)


def redacted_url(url: str) -> str:
    """Mask every password in a URL, in the user part and in parameters, for logs and messages."""
    return _SECRET_PARAMETER.sub(r"\1***", _USER_INFO.sub(r"://\1:***@", url))


def queue_url(url: str, schemes: tuple[str, ...]) -> str:
    """Normalize a URL for kombu: Valkey's schemes become Redis's, and a socket's path becomes absolute.

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
    if scheme == "redis+socket":
        return f"{scheme}://{_absolute_socket(rest)}"
    _check_address(scheme, rest)
    return _with_verification(scheme, f"{scheme}://{rest}")


def database_url_problem(adapter: str, url: str) -> str | None:
    """Return why a bundled adapter cannot use a URL, or None. The text does not contain the URL and its password."""
    if _DATABASE_URLS[adapter].match(url):
        return None
    return f"it should be a URL like {DATABASE_URL_EXAMPLES[adapter]} (the current value is not shown)"


def tls_parameters(url: str) -> dict[str, str]:
    """Return the ``ssl_*`` parameters of a URL."""
    return {name: value for name, value in parse_qsl(urlsplit(url).query) if name.startswith("ssl_")}


def without_tls_parameters(url: str) -> str:
    """Remove the ``ssl_*`` parameters from a URL."""
    parts = urlsplit(url)
    others = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
    return parts._replace(query=urlencode(others)).geturl()


def speaks_redis(url: str) -> bool:
    """Return whether the URL is a Redis or Valkey server's, which can also keep results."""
    return urlsplit(url).scheme in REDIS_SCHEMES


def _absolute_socket(rest: str) -> str:
    path, question_mark, query = rest.partition("?")
    if not path.strip("/"):
        raise ValueError("it should name the socket's file: redis+socket:///path/to/valkey.sock")
    if not path.startswith("/"):
        path = quote(str(Path.cwd())).rstrip("/") + "/" + path
    if len(unquote(path).encode()) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"a socket's path should be at most {MAX_SOCKET_PATH_BYTES} bytes long, made absolute; use a shorter one"
        )
    return path + question_mark + query


def _check_address(scheme: str, rest: str) -> None:
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port, path = parts.port, parts.path.strip("/")
    except ValueError:
        raise ValueError(
            "its host and port cannot be read; in a user name or password, write : / ? # @ percent-encoded"
        ) from None
    if port == 0:
        raise ValueError("its port should be between 1 and 65535")
    if scheme in REDIS_SCHEMES and path and not re.fullmatch(r"[0-9]{1,9}", path):
        raise ValueError(f"its path should be the number of a Redis database, as in {scheme}://host:6379/0")


def _with_verification(scheme: str, url: str) -> str:
    """Check the TLS parameters. A TLS URL without ``ssl_cert_reqs`` verifies the server's certificate."""
    given = tls_parameters(url)
    if scheme not in _TLS_SCHEMES:
        if given:
            raise ValueError("its ssl_ parameters need TLS: write rediss:// or amqps://")
        return url
    reqs = given.get("ssl_cert_reqs", _CERT_REQS[0])
    if reqs not in _CERT_REQS:
        raise ValueError("its ssl_cert_reqs should be required, optional or none")
    for name in _TLS_FILES:
        if name in given and not _is_file(given[name]):
            raise ValueError(f"its {name} is not an existing file: {given[name]}")
    if "ssl_cert_reqs" in given:
        return url
    # If it is missing, kombu verifies nothing and Celery's result backend does not start.
    return f"{url}{'&' if urlsplit(url).query else '?'}ssl_cert_reqs={reqs}"


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a directory on the path is not accessible
        return False


def _listed(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}://" for scheme in schemes[:-1]) + f" or {schemes[-1]}://"
