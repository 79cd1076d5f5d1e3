"""The class of each computed step, and how any step is made from its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from kvworker.model.computed_steps import ComputedStep
from kvworker.model.durable_steps import StepBegin, StepFinish, StepRenew
from kvworker.model.permit_steps import AcquirePermitStep, ReleasePermitStep, RenewPermitStep
from kvworker.model.rate_limit_step import RateLimitStep
from kvworker.model.steps import Action, Step
from kvworker.model.value_steps import AppendStep, GetAndDeleteStep, MergeStep

#: The class of each computed step by its action.
COMPUTED_STEPS: Final[Mapping[str, type[ComputedStep]]] = {
    "acquire_permit": AcquirePermitStep,
    "renew_permit": RenewPermitStep,
    "release_permit": ReleasePermitStep,
    "rate_limit": RateLimitStep,
    "append": AppendStep,
    "merge": MergeStep,
    "get_and_delete": GetAndDeleteStep,
    "step_begin": StepBegin,
    "step_renew": StepRenew,
    "step_finish": StepFinish,
}


def make_step(action: str, arguments: Mapping[str, Any]) -> Step:
    """Make a step from its action and its other arguments.

    Raises:
        InvalidRequestError: An argument is wrong.
    """
    return COMPUTED_STEPS.get(action, Step)(cast(Action, action), **arguments)
