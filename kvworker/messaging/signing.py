"""Signed messages, which cannot be made or changed without the key.

The signature is an HMAC-SHA256 over the task's name and the whole payload except the signature itself. It does not
cover the value that the previous task of a chain passes to a ``kv_set``. Workers do not sign results.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from kvworker.errors import ValueSerializationError
from kvworker.messaging.wire import SIGNATURE, TASK, Literal, with_literals
from kvworker.settings import PoliciesSettings
from kvworker.tools import Tool
from kvworker.tools.denials import log_denial

#: Why a worker refuses a message that its own key did not sign.
UNSIGNED = (
    "its message does not carry the signature of this worker's signing key; configure the same"
    " policies.signing_key where it is sent"
)
#: Why a worker refuses a message that was signed for another task. Celery signs only the body, which names its task
#: only if the sender adds it.
MISNAMED = "the signed body does not name this task; send it with `task` among its arguments"

# Part of the signed text: if its format ever changes, change this too, so that old signatures become invalid.
_PURPOSE: Final = "kvworker.message.1"


class MessageSigner:
    """Signs messages, and checks that received ones are authentic.

    Args:
        settings: The signing key, and whether certificates are used.
    """

    def __init__(self, settings: PoliciesSettings) -> None:
        self._settings = settings

    def sign(self, tool: Tool, payload: dict[str, Any], operation_id: str | None = None) -> dict[str, Any]:
        """Sign a payload, if a signing key or certificates are configured.

        Args:
            tool: The tool that the message requests.
            payload: The payload to sign, as ``encode_request`` made it.
            operation_id: Added to the payload of a write that has no operation id from its caller. A copy of the
                message under another task id is then still the same operation.

        Returns:
            The signed payload, or the same payload if nothing is configured.
        """
        key = self._settings.signing_key
        if key is None and not self._settings.has_certificates:
            return payload
        if operation_id and tool.writes:
            payload = {"idempotency_key": operation_id, **payload}
        if self._settings.has_certificates:
            payload = {**payload, TASK: tool.task_name}
        return _signed(key.get_secret_value(), tool.task_name, payload) if key else payload

    def authenticate(self, tool: Tool, payload: Mapping[str, Any]) -> None:
        """Check that a message is authentic, if a signing key or certificates are configured.

        With certificates, Celery has verified the signature before. This checks that it was made for this task.

        Args:
            tool: The tool that the message requests.
            payload: The payload as it was received.

        Raises:
            PolicyDeniedError: The message is not signed, or was changed.
        """
        if self._settings.has_certificates and payload.get(TASK) != tool.task_name:
            raise log_denial(payload.get("persona"), tool.name, payload.get("namespace"), MISNAMED)
        keys = [key.get_secret_value() for key in self._settings.accepted_signing_keys]
        if keys and not any(is_signed(key, tool.task_name, payload) for key in keys):
            raise log_denial(payload.get("persona"), tool.name, payload.get("namespace"), UNSIGNED)


def sign_payload(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Sign the keyword arguments of a message that you send yourself, by ``app.send_task`` or a Celery signature.

    Give an ``idempotency_key`` and a ``deadline`` (seconds since the epoch). Without them, anyone who can read the
    queue can repeat the message: under another task id it is a new operation::

        payload = {"namespace": "session", "key": "token", "value": "t", "persona": "researcher",
                   "idempotency_key": "run-7/step-3", "deadline": time.time() + 5}
        app.send_task("kvworker.kv_set", kwargs=sign_payload(key, "kvworker.kv_set", payload), queue="kv")

    Args:
        signing_key: The workers' ``policies.signing_key``.
        task_name: The name of the task, such as ``kvworker.kv_set``.
        payload: The arguments.

    Returns:
        The arguments with their signature.

    Raises:
        ValueSerializationError: The payload is not JSON.
    """
    unsigned = {name: value for name, value in payload.items() if name != SIGNATURE}
    return with_literals(_signed(signing_key, task_name, unsigned))


def is_signed(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> bool:
    """Tell whether a received payload carries the signature that the key gives it for this task."""
    given = payload.get(SIGNATURE)
    if not isinstance(given, str) or not given.isascii():
        return False
    unsigned = {name: value for name, value in payload.items() if name != SIGNATURE}
    try:
        digest = _digest(signing_key, task_name, unsigned)
    except (TypeError, ValueError, RecursionError):
        # The payload holds something that JSON cannot express, so ``sign_payload`` did not make it.
        return False
    return hmac.compare_digest(digest, given)


def _signed(signing_key: str, task_name: str, unsigned: Mapping[str, Any]) -> dict[str, Any]:
    try:
        digest = _digest(signing_key, task_name, unsigned)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueSerializationError(f"the message is not JSON: {error}") from None
    return {**unsigned, SIGNATURE: digest}


def _digest(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> str:
    # The order of arguments does not matter, but the order of a value's keys is stored.
    arguments = [[name, payload[name]] for name in sorted(payload)]
    text = json.dumps([_PURPOSE, task_name, arguments], separators=(",", ":"), default=_plain)
    return hmac.digest(signing_key.encode(), text.encode("ascii"), "sha256").hex()


def _plain(value: object) -> object:
    """Return the value that a ``Literal`` decodes to."""
    if isinstance(value, Literal):
        return json.loads(value.text)
    raise TypeError(f"a {type(value).__name__} is not JSON")
