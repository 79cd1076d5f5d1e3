"""The results of batches, and the result of each tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from kvworker.errors import KVStoreError, OperationFailedError, rebuild_error
from kvworker.model.durable_results import StepBeginResult, StepFinishResult, StepRenewResult
from kvworker.model.limit_results import (
    AcquirePermitResult,
    RateLimitResult,
    ReleasePermitResult,
    RenewPermitResult,
)
from kvworker.model.results import (
    ClearResult,
    ComputedResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    KeyList,
    LedgerUsage,
    NamespaceList,
    QuotaResult,
    Result,
    SetResult,
    TouchResult,
)
from kvworker.model.value_results import AppendResult, GetAndDeleteResult, MergeResult

StepResult: TypeAlias = GetResult | SetResult | IncrementResult | DeleteResult | TouchResult | ComputedResult

#: The results of the tools that may be a step of a batch.
STEP_RESULTS: Mapping[str, type[StepResult]] = {
    "kv_get": GetResult,
    "kv_set": SetResult,
    "kv_delete": DeleteResult,
    "kv_increment": IncrementResult,
    "kv_touch": TouchResult,
    "kv_persist": TouchResult,
    "kv_acquire_permit": AcquirePermitResult,
    "kv_renew_permit": RenewPermitResult,
    "kv_release_permit": ReleasePermitResult,
    "kv_rate_limit": RateLimitResult,
    "kv_append": AppendResult,
    "kv_merge": MergeResult,
    "kv_get_and_delete": GetAndDeleteResult,
    "kv_step_begin": StepBeginResult,
    "kv_step_renew": StepRenewResult,
    "kv_step_finish": StepFinishResult,
}


@dataclass(frozen=True, slots=True)
class BatchResult(Result):
    """The results of a batch's steps, in order. A step that was refused has its error as its result.

    Only a non-atomic batch holds errors. An atomic batch raises ``BatchRefusedError`` instead.
    """

    namespace: str
    results: tuple[StepResult | KVStoreError, ...]
    replayed: bool = False
    #: The steps' tools, by which ``from_dict`` chooses each result's class.
    tools: tuple[str, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue. Each step has its ``tool`` and its result or its ``error``."""
        steps = [
            {"tool": tool, **result.to_dict()} if isinstance(result, Result) else _error_to_dict(tool, result)
            for tool, result in zip(self.tools, self.results, strict=True)
        ]
        return {"namespace": self.namespace, "results": steps, "replayed": self.replayed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the batch's result from its dict."""
        steps = data["results"]
        tools = tuple(step["tool"] for step in steps)
        results = tuple(
            _error_from_dict(step["error"]) if "error" in step else STEP_RESULTS[step["tool"]].from_dict(step)
            for step in steps
        )
        return cls(data["namespace"], results, data["replayed"], tools)


OperationResult: TypeAlias = (
    StepResult | KeyList | NamespaceList | LedgerUsage | ClearResult | QuotaResult | BatchResult
)


def _error_to_dict(tool: str, error: KVStoreError) -> dict[str, Any]:
    # The message is for readers of the JSON, such as a language model. Python rebuilds the error from its args.
    return {"tool": tool, "error": {"type": type(error).__name__, "args": list(error.args), "message": str(error)}}


def _error_from_dict(data: Mapping[str, Any]) -> KVStoreError:
    error = rebuild_error(data["type"], data["args"])
    return error or OperationFailedError("", f"{data['type']}: {data['message']}")
