"""The tools for durable steps: the record of an effect that happens outside the store at most once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from kvworker.model import (
    DEFAULT_LEASE_SECONDS,
    FINISHED_STATES,
    INT64_MAX,
    MAX_HOLDER_BYTES,
    MAX_LEASE_SECONDS,
    UNRECORDED,
    EncodedValue,
    StepBeginResult,
    StepFinishResult,
    StepRenewResult,
    StepStatusResult,
    arguments_digest,
    check_finished_state,
    check_holder,
    check_lease,
    check_step_token,
    check_unrecorded,
)
from kvworker.tools.definition import READS, WRITES, Parameter, ResultField, Tool
from kvworker.tools.parameters import IDEMPOTENCY_KEY, KEY, NAMESPACE, TTL
from kvworker.tools.result_fields import KEY_FIELD, NAMESPACE_FIELD, REPLAYED_FIELD, STRING, TTL_FIELD

_TOKEN_SCHEMA: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 1, "maximum": INT64_MAX}
_TOKEN = Parameter("token", _TOKEN_SCHEMA, "The token that kv_step_begin gave you.", partial(check_step_token, "token"))
_HOLDER = Parameter(
    "holder",
    {"type": "string", "minLength": 1, "maxLength": MAX_HOLDER_BYTES},
    "Your name, which others see while you hold the step. The token is what gives you the step.",
    check_holder,
    required=False,
)
_ARGUMENTS = Parameter(
    "arguments",
    {},
    "What the effect depends on: any JSON value, such as the amount and the recipient. A later call of the same key"
    " with other arguments is refused. Only a digest is kept.",
    arguments_digest,
    required=False,
    holds_values=True,
)
_LEASE = Parameter(
    "lease_seconds",
    {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_LEASE_SECONDS, "default": DEFAULT_LEASE_SECONDS},
    "Seconds for which the step is held from now. Once they are over without an outcome, the step is unknown.",
    check_lease,
    required=False,
)
_TAKEOVER_TOKEN = Parameter(
    "takeover_token",
    _TOKEN_SCHEMA,
    "The token of a step that is unknown, to take it over after you looked whether its effect happened.",
    partial(check_step_token, "takeover_token"),
    required=False,
)
_BEGIN_IDEMPOTENCY_KEY = Parameter(
    IDEMPOTENCY_KEY.name,
    IDEMPOTENCY_KEY.schema,
    "A fresh name for this call, with which you may repeat it if its answer was lost. Never use one again for another"
    " attempt at the effect.",
    IDEMPOTENCY_KEY.check,
    required=False,
)
_STATE = Parameter(
    "state",
    {"type": "string", "enum": list(FINISHED_STATES)},
    "done: the effect happened. failed: it failed for good. released: it did not happen, and may be tried again."
    " unknown: you cannot know.",
    check_finished_state,
)
_OUTCOME = Parameter(
    "value",
    {},
    "The effect's result, or what went wrong: any JSON value. Only for done and failed.",
    EncodedValue.of,
    required=False,
    holds_values=True,
)
_UNRECORDED = Parameter(
    "unrecorded",
    {"type": "string", "enum": list(UNRECORDED)},
    "Why no value is recorded, if one should be. An outcome without a value fits even into a full quota.",
    check_unrecorded,
    required=False,
)
_OUTCOME_TTL = Parameter(
    TTL.name,
    TTL.schema,
    "Seconds for which the outcome is kept. Afterwards the effect could happen again. Without it the outcome is kept"
    " until it is deleted.",
    TTL.check,
    required=False,
)

_TOKEN_FIELD = ResultField(
    "token", {"type": "integer"}, "The token of the caller that holds the step, or that ended it.", always=False
)
_LEASE_FIELD = ResultField(
    "lease_seconds", {"type": "number", "minimum": 0}, "Seconds until the lease runs out.", always=False
)
#: What is known about a step.
_STATE_FIELDS: Final = (
    _TOKEN_FIELD,
    ResultField("holder", STRING, "The name of the caller that reserved the step.", always=False),
    _LEASE_FIELD,
    ResultField("value", {}, "The recorded result or error of a step that is done or failed.", always=False),
    ResultField("unrecorded", STRING, "Why a step that is done or failed has no recorded value.", always=False),
)

_BEGIN: Final = Tool(
    name="kv_step_begin",
    summary="Reserve a step before you do something outside that must not happen twice, such as a charge or an e-mail."
    " Go on only if state is reserved, and then call kv_step_finish with the token. If state is done or failed, use the"
    " recorded value. If it is in_progress, someone else is doing it. If it is unknown, it may have happened: look"
    " first.",
    parameters=(NAMESPACE, KEY, _HOLDER, _ARGUMENTS, _LEASE, _TAKEOVER_TOKEN, _BEGIN_IDEMPOTENCY_KEY),
    result=StepBeginResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("state", STRING, "reserved (you hold the step), in_progress, unknown, done or failed."),
        *_STATE_FIELDS,
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
    repeatable=False,
    reveals=True,
)
_RENEW: Final = Tool(
    name="kv_step_renew",
    summary="Hold a step that you reserved for longer, while its effect still takes time.",
    parameters=(NAMESPACE, KEY, _TOKEN, _LEASE, IDEMPOTENCY_KEY),
    result=StepRenewResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("token", {"type": "integer"}, "Your token."),
        ResultField("lease_seconds", {"type": "number", "minimum": 0}, "Seconds until the lease runs out."),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
)
_FINISH: Final = Tool(
    name="kv_step_finish",
    summary="Record how a step that you reserved ended, so that nobody does it again. It fails with StepLostError if"
    " another caller took the step over.",
    parameters=(NAMESPACE, KEY, _TOKEN, _STATE, _OUTCOME, _UNRECORDED, _OUTCOME_TTL, IDEMPOTENCY_KEY),
    result=StepFinishResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("token", {"type": "integer"}, "Your token."),
        ResultField("state", STRING, "The state that you gave."),
        REPLAYED_FIELD,
    ),
    side_effects="write",
    requires_flags=WRITES,
)
_STATUS: Final = Tool(
    name="kv_step_status",
    summary="Tell whether a step is absent, in_progress, unknown, done or failed, with its recorded value.",
    parameters=(NAMESPACE, KEY),
    result=StepStatusResult,
    result_fields=(
        NAMESPACE_FIELD,
        KEY_FIELD,
        ResultField("state", STRING, "absent, in_progress, unknown, done or failed."),
        *_STATE_FIELDS,
        TTL_FIELD,
    ),
    side_effects="none",
    requires_flags=READS,
)

#: The tools that may be an operation of a batch.
DURABLE_STEP_TOOLS: Final = (_BEGIN, _RENEW, _FINISH)
STEP_STATUS: Final = _STATUS
