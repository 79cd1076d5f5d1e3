"""Celery's message signing: each sender signs with its own key, and each reader has the senders' certificates.

Celery signs only the body of a message or a result. So the body of an operation also names its task and its operation
id (``kvworker.messaging.signing``). Otherwise a signed read could be sent again as a delete.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from celery.exceptions import ImproperlyConfigured, SecurityError
from kombu.serialization import register

from kvworker.errors import ConfigurationError, extra_needed

if TYPE_CHECKING:
    from kvworker.settings import PoliciesSettings

#: Celery's name for its signing serializer. ``_CONTENT_TYPE`` is Celery's content type for it.
SERIALIZER: Final = "auth"
_CONTENT_TYPE: Final = "application/data"
_JSON: Final = "application/json"
_DIGEST: Final = "sha256"

_Loaded = TypeVar("_Loaded")


def sign_everything(policies: PoliciesSettings) -> dict[str, Any]:
    """Register the signing serializer, and return the settings of an application that accepts only signed messages.

    Unlike ``Celery.setup_security``, it does not disable the serializers of other applications in this process.

    Args:
        policies: The files of the key, its certificate and the senders' certificates.

    Returns:
        Celery's settings of serializers and accepted content.

    Raises:
        ConfigurationError: A file cannot be used, or the package cryptography is not installed.
    """
    serializer = _make_serializer(policies)

    def deserialize(data: Any) -> Any:
        """Verify a message and decode its body, which must be JSON."""
        # The signature does not cover the body's content type, and Celery would decode by whatever type it names.
        if serializer._unpack(data)["content_type"] != _JSON:
            raise SecurityError("the signed body is not JSON")
        return serializer.deserialize(data)

    register(SERIALIZER, serializer.serialize, deserialize, _CONTENT_TYPE, "utf-8")
    names = ("task_serializer", "result_serializer", "event_serializer")
    accepted = ("accept_content", "result_accept_content")
    return {**dict.fromkeys(names, SERIALIZER), **{name: [SERIALIZER] for name in accepted}}


def check_certificates(policies: PoliciesSettings) -> None:
    """Check that the configured files of keys and certificates can be used, if there are any.

    Raises:
        ConfigurationError: A file cannot be used, or the package cryptography is not installed.
    """
    if policies.has_certificates:
        _make_serializer(policies)


def _make_serializer(policies: PoliciesSettings) -> Any:
    try:
        from celery.security.certificate import Certificate, FSCertStore  # noqa: PLC0415
        from celery.security.key import PrivateKey  # noqa: PLC0415
        from celery.security.serialization import SecureSerializer  # noqa: PLC0415
    except (ImportError, ImproperlyConfigured):
        raise ConfigurationError(extra_needed("policies.security_key: signing", "signing")) from None

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
        # The error's own text may quote the file.
        reason = error.strerror if isinstance(error, OSError) else f"it is not {_EXPECTED[name]}"
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
            # Celery raises SecurityError here, but constructs it wrongly, which raises TypeError.
            reason = "it does not belong to policies.security_key"
    if reason:
        file = policies.security_certificate
        raise ConfigurationError(f"policies.security_certificate: {file} cannot be used: {reason}")


_EXPECTED: Final = {
    "security_key": "an RSA private key in PEM form without a password",
    "security_certificate": "an RSA certificate in PEM form",
    "security_cert_store": "a directory or pattern of RSA certificates in PEM form, none of which has expired",
}
