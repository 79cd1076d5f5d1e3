"""Checks of calls and operations: their timeouts, their errors, and their records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from kvworker.adapters.sql.record_ids import record_id
from tests.chaos.evidence import Evidence, Name
from tests.chaos.history import UNKNOWNS, Operation, Outcome

#: A call may exceed its timeout by this much.
GRACE_SECONDS = 1.0

#: The refusals that the load provokes, by kind of operation. Any other refusal is a violation.
_REFUSALS: Mapping[str, frozenset[str]] = {
    "swap": frozenset({"VersionConflictError"}),
    "claim": frozenset({"VersionConflictError"}),
    "crowd": frozenset({"NamespaceQuotaExceededError"}),
}
_FAULT_ERRORS = frozenset(
    {error.__name__ for error in UNKNOWNS} | {"QueueUnavailableError", "OperationNotSentError", "OperationExpiredError"}
)


def late_calls(evidence: Evidence) -> Iterator[str]:
    """No call outlives its timeout."""
    for call in evidence.calls:
        if call.took_seconds > call.timeout_seconds + GRACE_SECONDS:
            yield (
                f"a call outlived its timeout of {call.timeout_seconds:.2f} s: {call.took_seconds:.2f} s,"
                f" {call.outcome} {call.error}: {call.name}"
            )


def unexplained_errors(evidence: Evidence) -> Iterator[str]:
    """A fault or an expected refusal explains every error."""
    for call in evidence.calls:
        if call.error and call.error not in _FAULT_ERRORS | _REFUSALS.get(call.kind, frozenset()):
            yield f"an error that nothing explains: {call.error}: {call.detail}: {call.name}"


def unknown_outcomes(evidence: Evidence) -> Iterator[str]:
    """Every caller learns the outcome of its operation in the end."""
    for operation in evidence.operations:
        if operation.outcome is Outcome.UNKNOWN:
            last = operation.tries[-1]
            yield (
                f"still unknown after {len(operation.tries)} tries, the last {last.outcome} by {last.error}"
                f" ({last.detail}): {last.name}"
            )


def records(evidence: Evidence) -> Iterator[str]:
    """Acknowledged writes have a record, failed writes have none, and no other records exist."""
    asked: set[Name] = set()
    for operation in evidence.operations:
        name = operation.first.namespace, record_id(operation.first.operation_id).hex()
        asked.add(name)
        is_there = name in evidence.snapshot.records
        if operation.success and not is_there:
            yield f"acknowledged as {operation.outcome}, but there is no record of it: {operation.first.name}"
        if is_there and not operation.success and operation.outcome is not Outcome.UNKNOWN:
            tries = ", ".join(f"{call.outcome} ({call.error})" for call in operation.tries)
            yield f"reported as {operation.outcome}, but it was applied; its tries: {tries}: {operation.first.name}"
    for namespace, record in sorted(evidence.snapshot.records - asked):
        yield f"a record of an operation that no caller asked for: {record} in {namespace!r}"


def applied_twice(evidence: Evidence) -> Iterator[str]:
    """At most one try of an operation reports that it applied the operation."""
    for operation in evidence.operations:
        times = [call.outcome for call in operation.tries].count(Outcome.APPLIED)
        if times > 1:
            yield f"{times} tries say that they applied it: {operation.first.name}"


def claims(evidence: Evidence) -> Iterator[str]:
    """Exactly one claim of a key wins, unless no claim reached the database."""
    claimed: dict[Name, list[Operation]] = defaultdict(list)
    for operation in evidence.operations:
        if operation.first.kind == "claim":
            claimed[operation.first.namespace, operation.first.steps[0].key].append(operation)
    for (namespace, key), operations in claimed.items():
        winners = [operation.first.caller for operation in operations if operation.success]
        if len(winners) > 1:
            yield f"{len(winners)} callers won {key!r} in {namespace!r}: {', '.join(winners)}"
        if not winners and any(operation.outcome is Outcome.REFUSED for operation in operations):
            yield f"no caller won {key!r} in {namespace!r}, yet a claim was refused"


def deletes(evidence: Evidence) -> Iterator[str]:
    """A delete finds the entry that its caller has set."""
    for operation in evidence.operations:
        if operation.first.kind == "delete" and operation.success and operation.success.answers[0].value is not True:
            yield f"a delete did not find its entry: {operation.first.name}"
