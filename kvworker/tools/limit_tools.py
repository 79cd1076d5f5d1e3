"""The tools that hold callers back: permits of leases and semaphores, and rate limits."""

from __future__ import annotations

from functools import partial
from typing import Final

from kvworker.model import (
    INT64_MAX,
    MAX_HOLDER_BYTES,
    MAX_PERMITS,
    MAX_RATE,
    AcquirePermitResult,
    RateLimitResult,
    ReleasePermitResult,
    RenewPermitResult,
    check_count,
    check_holder,
    check_period,
    check_permit_ttl,
    check_token,
)
from kvworker.tools.definition import WRITES, Parameter, ResultField, Tool
from kvworker.tools.parameters import IDEMPOTENCY_KEY, KEY, NAMESPACE
from kvworker.tools.result_fields import BOOLEAN, COUNT, KEY_FIELD, NAMESPACE_FIELD, REPLAYED_FIELD

_SECONDS: Final = {"type": "number", "minimum": 0}

_HOLDER = Parameter(
    "holder",
    {"type": "string", "minLength": 1, "maxLength": MAX_HOLDER_BYTES},
    "A name for this holder that no other one uses, for example the run id. Use it for renewal and release too."
    f" Not blank, at most {MAX_HOLDER_BYTES} bytes of UTF-8.",
    check_holder,
)
_PERMITS = Parameter(
    "permits",
    {"type": "integer", "minimum": 1, "maximum": MAX_PERMITS, "default": 1},
    "How many holders there may be at the same time. Every caller must give the same number.",
    partial(check_count, "permits", largest=MAX_PERMITS),
    required=False,
)
_TTL = Parameter(
    "ttl_seconds",
    {"type": "number", "exclusiveMinimum": 0},
    "Seconds until the permit expires and is free again, unless it is renewed.",
    check_permit_ttl,
)
_TOKEN = Parameter(
    "token",
    {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
    "The token that kv_acquire_permit returned. If it is given, a later permit of the same holder does not count.",
    check_token,
    required=False,
)
_TTL_FIELD = ResultField("ttl_seconds", _SECONDS, "Seconds until the permit expires.")

_ACQUIRE_PERMIT = Tool(
    name="kv_acquire_permit",
    summary="Take a permit of a lease (permits 1, the default) or of a semaphore, if one is free. If none is, acquired"
    " is false; that is not an error. A holder that has a permit keeps it, and it expires ttl_seconds from now.",
    parameters=(NAMESPACE, KEY, _HOLDER, _TTL, _PERMITS, IDEMPOTENCY_KEY),
    result=AcquirePermitResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("acquired", BOOLEAN, "True if the caller has a permit."),
        ResultField("in_use", COUNT, "The number of permits that are held now."),
        ResultField(
            "token",
            {"type": "integer"},
            "The permit's fencing token, larger than those of all earlier permits; left out if acquired is false.",
            always=False,
        ),
        ResultField("ttl_seconds", _SECONDS, _TTL_FIELD.description + " Left out if acquired is false.", always=False),
        ResultField(
            "retry_after_seconds",
            _SECONDS,
            "Seconds until the first permit expires, if it is not renewed; left out if acquired is true.",
            always=False,
        ),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
)
_RENEW_PERMIT = Tool(
    name="kv_renew_permit",
    summary="Make a permit that the holder has expire ttl_seconds from now. If it has expired or was released, the call"
    " fails with LeaseLostError. As the first operation of an atomic kv_batch, it protects the writes that follow.",
    parameters=(NAMESPACE, KEY, _HOLDER, _TTL, _TOKEN, IDEMPOTENCY_KEY),
    result=RenewPermitResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("token", {"type": "integer"}, "The permit's fencing token, which has not changed."),
        _TTL_FIELD,
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
)
_RELEASE_PERMIT = Tool(
    name="kv_release_permit",
    summary="Give a permit back. If it has expired or was released before, released is false; that is not an error, and"
    " the permits of others stay.",
    parameters=(NAMESPACE, KEY, _HOLDER, _TOKEN, IDEMPOTENCY_KEY),
    result=ReleasePermitResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("released", BOOLEAN, "True if the holder had the permit until now."),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
)


def _count_parameter(name: str, description: str, *, default: int | None = None, required: bool = False) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_RATE}
    return Parameter(
        name,
        schema if default is None else {**schema, "default": default},
        description,
        partial(check_count, name, largest=MAX_RATE),
        required=required,
    )


_RATE_LIMIT = Tool(
    name="kv_rate_limit",
    summary="Take from a rate limit that all callers share. If too little is left, allowed is false, which is not an"
    " error, and nothing is taken: wait retry_after_seconds and call again with a new idempotency_key.",
    parameters=(
        NAMESPACE,
        KEY,
        _count_parameter("limit", "How much is given back in per_seconds.", required=True),
        Parameter(
            "per_seconds",
            {"type": "number", "exclusiveMinimum": 0},
            "The period of the limit in seconds.",
            check_period,
        ),
        _count_parameter("burst", "The most that can be taken at once after a pause. By default it is limit."),
        _count_parameter("quantity", "How much to take.", default=1),
        IDEMPOTENCY_KEY,
    ),
    result=RateLimitResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("allowed", BOOLEAN, "True if the quantity was taken."),
        ResultField("remaining", COUNT, "The quantity that is left now."),
        ResultField("retry_after_seconds", _SECONDS, "Seconds until the call may be allowed; 0 if it was."),
        ResultField("full_after_seconds", _SECONDS, "Seconds until everything is left again."),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
    repeatable=False,
)

#: They may all be operations of a batch.
LIMIT_TOOLS: Final = (_ACQUIRE_PERMIT, _RENEW_PERMIT, _RELEASE_PERMIT, _RATE_LIMIT)
