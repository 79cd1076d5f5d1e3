"""Celery's message signing: whoever sends signs with a key of its own, and whoever reads knows the certificates.

Celery signs the body of a message or of a result, and nothing beside it. So an operation's body names its task and its
operation id too (``kvworker.tools.policy``): otherwise a read that was signed could be sent again as a delete.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from celery.exceptions import ImproperlyConfigured, SecurityError
from kombu.serialization import register

from kvworker.errors import ConfigurationError

if TYPE_CHECKING:
    from kvworker.settings import PoliciesSettings

#: The name and the content type that Celery gives to it.
SERIALIZER: Final = "auth"
_CONTENT_TYPE: Final = "application/data"
_JSON: Final = "application/json"
_DIGEST: Final = "sha256"

_Loaded = TypeVar("_Loaded")


def sign_everything(policies: PoliciesSettings) -> dict[str, Any]:
    """Have this process sign with its key, and give the settings of an application that takes nothing unsigned.

    Unlike ``Celery.setup_security`` it leaves the serializers of other applications in this process alone.

    Raises:
        ConfigurationError: a file cannot be used, or the package cryptography is missing.
    """
    serializer = _make_serializer(policies)

    def deserialize(data: Any) -> Any:
        # No signature covers how the body is to be read, and Celery would read it by whatever is named there.
        if serializer._unpack(data)["content_type"] != _JSON:
            raise SecurityError("what was signed is not JSON")
        return serializer.deserialize(data)

    register(SERIALIZER, serializer.serialize, deserialize, _CONTENT_TYPE, "utf-8")
    names = ("task_serializer", "result_serializer", "event_serializer")
    accepted = ("accept_content", "result_accept_content")
    return {**dict.fromkeys(names, SERIALIZER), **{name: [SERIALIZER] for name in accepted}}


def check_certificates(policies: PoliciesSettings) -> None:
    """See that the files can be used, where any are configured.

    Raises:
        ConfigurationError: one cannot.
    """
    if policies.has_certificates:
        _make_serializer(policies)


def _make_serializer(policies: PoliciesSettings) -> Any:
    try:
        from celery.security.certificate import Certificate, FSCertStore  # noqa: PLC0415
        from celery.security.key import PrivateKey  # noqa: PLC0415
        from celery.security.serialization import SecureSerializer  # noqa: PLC0415
    except (ImportError, ImproperlyConfigured):
        raise ConfigurationError("policies.security_key: signing needs `pip install 'kvworker[signing]'`") from None

    key = _load("security_key", policies.security_key, lambda path: PrivateKey(path.read_text()))
    certificate = _load("security_certificate", policies.security_certificate, lambda p: Certificate(p.read_text()))
    store = _load("security_cert_store", policies.security_cert_store, lambda path: FSCertStore(str(path)))
    if next(store.itercerts(), None) is None:
        raise ConfigurationError(f"policies.security_cert_store: no certificate is at {policies.security_cert_store}")
    _check_pair(key, certificate, policies)
    return SecureSerializer(key, certificate, store, _DIGEST)


def _load(name: str, file: str | None, load: Callable[[Path], _Loaded]) -> _Loaded:
    try:
        return load(Path(file or ""))
    except (OSError, SecurityError, ValueError, TypeError) as error:
        # Its own text may quote what is in the file.
        reason = error.strerror if isinstance(error, OSError) else f"it is no {_WANTED[name]}"
        raise ConfigurationError(f"policies.{name}: {file} cannot be used: {reason}") from None


def _check_pair(key: Any, certificate: Any, policies: PoliciesSettings) -> None:
    from celery.security.utils import get_digest_algorithm  # noqa: PLC0415

    digest, reason = get_digest_algorithm(_DIGEST), ""
    if certificate.has_expired():
        reason = "it has expired"
    else:
        try:
            certificate.verify(b"", key.sign(b"", digest), digest)
        except (SecurityError, TypeError):
            # Celery means to raise the first, and the second comes of how it does.
            reason = "it is not of policies.security_key"
    if reason:
        file = policies.security_certificate
        raise ConfigurationError(f"policies.security_certificate: {file} cannot be used: {reason}")


_WANTED: Final = {
    "security_key": "RSA private key in PEM form without a password",
    "security_certificate": "RSA certificate in PEM form",
    "security_cert_store": "directory or pattern of RSA certificates in PEM form, none of which has expired",
}
