"""A write as the database needs it, its record, and the fingerprint that tells a repeated request from another one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kvworker.adapters.sql.record_ids import request_digest
from kvworker.model import (
    ComputedStep,
    GeneratedOperationId,
    Step,
    check_namespace,
    check_operation_id,
    new_operation_id,
)

#: The plain actions' names in fingerprints. Records keep fingerprints, so these must never change.
_FINGERPRINT_NAMES: Final = {"set": "set_entry", "delete": "delete_entry", "increment": "increment_entry"}


#: What a write may exceed: the bytes of its namespace or of the store, or the number of entries or of operation records
#: of its namespace, or of namespaces.
Quota: TypeAlias = Literal["namespace", "store", "entries", "records", "namespaces"]
#: No limit is larger, and a namespace's own quota multiplies its limits by at most the other number.
_MAX_LIMIT: Final = 2**40
_MAX_LIMIT_FACTOR: Final = 2**20


@dataclass(frozen=True, slots=True)
class Write:
    """A write, ready for the database.

    ``action`` is a step's action, ``batch``, ``clear`` or ``set_quota``. In a batch that is not ``atomic``, steps are
    refused individually. ``purged`` names the quotas for which expired entries and records were purged already, so
    that a refusal by them is final. ``is_generated`` says that no caller chose the operation id.
    """

    action: str
    namespace: str
    operation_id: str
    fingerprint: str
    is_generated: bool = False
    steps: tuple[Step, ...] = ()
    atomic: bool = True
    quota_bytes: int | None = None
    purged: frozenset[Quota] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether one statement can apply the write."""
        return self.action in {"set", "delete", "increment"}

    @property
    def request_digest(self) -> int:
        """The digest of the operation id and the request that a record keeps."""
        return request_digest(self.operation_id, self.fingerprint)

    @property
    def keys(self) -> list[str]:
        """The keys of the steps, sorted and without duplicates."""
        return sorted({step.key for step in self.steps})

    @property
    def read_keys(self) -> list[str]:
        """The keys whose values the steps depend on."""
        return sorted({step.key for step in self.steps if step.reads_value})


@dataclass(frozen=True, slots=True)
class Limits:
    """The quotas in bytes, how long operation records are kept, and how many rows there may be.

    Every write sends them to the database. ``entries`` and ``records`` are those of a namespace.
    ``generated_retention_seconds`` is the retention of records whose operation id no caller chose.
    """

    namespace_bytes: int
    global_bytes: int | None
    retention_seconds: float
    entries: int = _MAX_LIMIT
    records: int = _MAX_LIMIT
    namespaces: int = _MAX_LIMIT
    generated_retention_seconds: float = 3600.0

    def factor(self, own_quota: int | None) -> int:
        """Return how many times the limits of entries and records a namespace with its own quota has."""
        return min(_MAX_LIMIT_FACTOR, max(1, (own_quota or 0) // self.namespace_bytes))

    def retention_of(self, write: Write) -> float:
        """Return for how many seconds the record of a write is kept."""
        return self.generated_retention_seconds if write.is_generated else self.retention_seconds


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a write; ``now`` is the database's clock in seconds since 1970.

    ``fingerprint`` is that of the write, or the text of its ``request_digest``.
    """

    fingerprint: str
    result: str
    now: float
    replayed: bool


def whole_result(result: str | None, stamp: int) -> str:
    """Return a record's result with the version that the stamp tells, if it is one of a version."""
    compact = "v" if result is None else result
    return f"{compact}{stamp}" if compact.endswith("v") else compact


def make_write(action: str, namespace: str, operation_id: str | None, **fields: Any) -> Write:
    """Make a write; without an operation id it gets a fresh one.

    Raises:
        InvalidKeyError, InvalidRequestError: the namespace or the operation id is invalid.
    """
    given = new_operation_id() if operation_id is None else operation_id
    return Write(
        action,
        check_namespace(namespace),
        check_operation_id(given),
        _fingerprint(action, **fields),
        isinstance(given, GeneratedOperationId),
        **fields,
    )


def _fingerprint(
    action: str, *, steps: tuple[Step, ...] = (), atomic: bool = True, quota_bytes: int | None = None
) -> str:
    requests = [_request(step) for step in steps]
    is_single = bool(requests) and action != "batch"
    request = requests[0] if is_single else [action, atomic, quota_bytes, requests]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


def _request(step: Step) -> list[Any]:
    if isinstance(step, ComputedStep):
        return [step.action, step.key, step.ttl_seconds, step.expected_version, *step.request]
    # For a counter, the text (its first value) and the delta together determine the initial value.
    text = step.text if step.action in {"set", "increment"} else None
    delta = step.delta if step.action == "increment" else 0
    request = [_FINGERPRINT_NAMES.get(step.action, step.action), step.key, text, step.ttl_seconds, delta]
    if step.is_conditional:
        request += [step.expected_version, step.if_absent, step.keep_ttl]
    return request
