"""Signed messages: nobody without the key can make one, or change one.

The signature is an HMAC-SHA256 over the task's name and the whole payload but itself. What it cannot cover:
the value that a chain's previous task hands to a ``kv_set``, and results, which workers do not sign.
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

#: Why a worker refuses a message whose signature is not of its own key.
UNSIGNED = (
    "its message does not carry the signature of this worker's signing key; configure the same"
    " policies.signing_key where it is sent"
)
#: Why it refuses one that was signed for another task: what certificates sign does not hold the task's name by itself.
MISNAMED = "what was signed does not name this task; send it with `task` among its arguments"

# Should the form of what is signed ever change, no old signature means anything in the new form.
_PURPOSE: Final = "kvworker.message.1"


class MessageSigner:
    """Signs the messages of a configuration, and checks that a received one is authentic."""

    def __init__(self, settings: PoliciesSettings) -> None:
        self._settings = settings

    def sign(self, tool: Tool, payload: dict[str, Any], operation_id: str | None = None) -> dict[str, Any]:
        """The payload with its signature; as it is where neither a signing key nor certificates are configured.

        ``operation_id`` becomes part of it where a write has none of the caller's: a copy of the message
        under another task id is then still the same operation.
        """
        key = self._settings.signing_key
        if key is None and not self._settings.has_certificates:
            return payload
        if operation_id and tool.writes:
            payload = {"idempotency_key": operation_id, **payload}
        if self._settings.has_certificates:
            payload = {**payload, TASK: tool.task_name}
        return sign_payload(key.get_secret_value(), tool.task_name, payload) if key else payload

    def authenticate(self, tool: Tool, payload: Mapping[str, Any]) -> None:
        """See that a message was signed, where a signing key or certificates are configured.

        By certificates Celery has verified it before; what is left is that it was signed for this task.

        Raises:
            PolicyDeniedError: it was not, or something in it was changed.
        """
        if self._settings.has_certificates and payload.get(TASK) != tool.task_name:
            raise log_denial(payload.get("persona"), tool.name, payload.get("namespace"), MISNAMED)
        key = self._settings.signing_key
        if key and not is_signed(key.get_secret_value(), tool.task_name, payload):
            raise log_denial(payload.get("persona"), tool.name, payload.get("namespace"), UNSIGNED)


def sign_payload(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a message, with their signature, for ``app.send_task`` or a signature of Celery's.

    A message without an ``idempotency_key`` is a new operation under each task id that it is sent with, so
    give one, and a ``deadline`` (seconds since the epoch), or whoever can read the queue can repeat it::

        payload = {"namespace": "session", "key": "token", "value": "t", "persona": "researcher",
                   "idempotency_key": "run-7/step-3", "deadline": time.time() + 5}
        app.send_task("kvworker.kv_set", kwargs=sign_payload(key, "kvworker.kv_set", payload), queue="kv")

    Raises:
        ValueSerializationError: the payload is not JSON.
    """
    unsigned = {name: value for name, value in payload.items() if name != SIGNATURE}
    try:
        digest = _digest(signing_key, task_name, unsigned)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueSerializationError(f"the message is not JSON: {error}") from None
    return {**with_literals(unsigned), SIGNATURE: digest}


def is_signed(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> bool:
    """Whether the payload, as it was received, carries the signature that the key gives it."""
    given = payload.get(SIGNATURE)
    if not isinstance(given, str) or not given.isascii():
        return False
    unsigned = {name: value for name, value in payload.items() if name != SIGNATURE}
    try:
        digest = _digest(signing_key, task_name, unsigned)
    except (TypeError, ValueError, RecursionError):
        # It holds what no JSON of ours decodes to, so it was not signed here.
        return False
    return hmac.compare_digest(digest, given)


def _digest(signing_key: str, task_name: str, payload: Mapping[str, Any]) -> str:
    # Arguments have no order, but the keys of a value do: they are stored as they came.
    arguments = [[name, payload[name]] for name in sorted(payload)]
    text = json.dumps([_PURPOSE, task_name, arguments], separators=(",", ":"), default=_plain)
    return hmac.digest(signing_key.encode(), text.encode("ascii"), "sha256").hex()


def _plain(value: object) -> object:
    """What a tagged value is when it arrives."""
    if isinstance(value, Literal):
        return json.loads(value.text)
    raise TypeError(f"a {type(value).__name__} is not JSON")
