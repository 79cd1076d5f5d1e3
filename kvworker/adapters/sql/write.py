"""From checked arguments to a write with its fingerprint, which tells a repeated request from another one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kvworker.adapters.sql.dialect import Write
from kvworker.model import Step, check_namespace, check_operation_id, new_operation_id

#: What the plain actions are called in fingerprints.
_STATEMENTS = {"set": "set_entry", "delete": "delete_entry", "increment": "increment_entry"}


def make_write(action: str, namespace: str, operation_id: str | None, **fields: Any) -> Write:
    """Make a write; without an operation id it gets a fresh one.

    Raises:
        InvalidKeyError, InvalidRequestError: the namespace or the operation id is wrong.
    """
    checked_id = new_operation_id() if operation_id is None else check_operation_id(operation_id)
    return Write(action, check_namespace(namespace), checked_id, _fingerprint(action, **fields), **fields)


def _fingerprint(
    action: str, *, steps: tuple[Step, ...] = (), atomic: bool = True, quota_bytes: int | None = None
) -> str:
    requests = [_request(step) for step in steps]
    is_one = bool(requests) and action != "batch"
    request = requests[0] if is_one else [action, atomic, quota_bytes, requests]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


def _request(step: Step) -> list[Any]:
    # A counter's first value and delta say together what its initial value was.
    text = step.text if step.action in {"set", "increment"} else None
    delta = step.delta if step.action == "increment" else 0
    request = [_STATEMENTS.get(step.action, step.action), step.key, text, step.ttl_seconds, delta]
    if step.is_conditional:
        request += [step.expected_version, step.if_absent, step.keep_ttl]
    return request
