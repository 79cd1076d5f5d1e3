"""The verdict on a scenario: what must hold between the callers' history and the database, as pure checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.chaos.call_checks import (
    applied_twice,
    claims,
    deletes,
    late_calls,
    records,
    unexplained_errors,
    unknown_outcomes,
)
from tests.chaos.entry_checks import counters, ledgers, puts, unrequested_entries
from tests.chaos.evidence import Evidence, Snapshot
from tests.chaos.history import Call
from tests.chaos.read_checks import counter_reads, expiring_reads, own_reads, twin_reads

#: Each check describes its violations in words.
CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    late_calls,
    unexplained_errors,
    unknown_outcomes,
    records,
    unrequested_entries,
    applied_twice,
    counters,
    puts,
    claims,
    deletes,
    own_reads,
    expiring_reads,
    counter_reads,
    twin_reads,
    ledgers,
)


def violations(calls: Sequence[Call], snapshot: Snapshot) -> list[str]:
    """Run all checks and describe each violation; the list is empty if everything holds."""
    evidence = Evidence(calls, snapshot)
    return [problem for check in CHECKS for problem in check(evidence)]
