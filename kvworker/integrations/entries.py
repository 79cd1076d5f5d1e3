"""Reads and writes of several entries of one namespace, as rounds of calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from kvworker.errors import BatchRefusedError, KVStoreError, ReadTooLargeError
from kvworker.integrations.rounds import Call, Rounds, chunked, make_call, result_of
from kvworker.model import MAX_BATCH_STEPS, MAX_PAGE_ROWS, BatchResult, GetResult, KeyList, ListedEntry

#: An operation of a batch: its tool and its arguments.
Step: TypeAlias = Mapping[str, Any]


def read_entries(namespace: str, keys: Sequence[str]) -> Rounds[dict[str, GetResult]]:
    """Read some keys: in one message, or in several if the values are too large for one.

    Returns:
        The live entries, by key.
    """
    found: dict[str, GetResult] = {}
    waiting = list(chunked(keys, MAX_BATCH_STEPS))
    while waiting:
        outcomes = yield [_get_call(namespace, chunk) for chunk in waiting]
        sent, waiting = waiting, []
        for chunk, outcome in zip(sent, outcomes, strict=True):
            if isinstance(outcome, ReadTooLargeError) and len(chunk) > 1:
                middle = len(chunk) // 2
                waiting += [chunk[:middle], chunk[middle:]]
                continue
            found.update((entry.key, entry) for entry in _entries(result_of(outcome)) if entry.found)
    return found


def list_entries(namespace: str, prefix: str = "", *, with_values: bool = False) -> Rounds[list[ListedEntry]]:
    """List all live entries whose keys begin with the prefix, page by page. Pages are no snapshot."""
    found: list[ListedEntry] = []
    cursor = None
    while True:
        arguments = {"namespace": namespace, "prefix": prefix, "limit": MAX_PAGE_ROWS, "cursor": cursor}
        page: KeyList = yield from make_call(Call("kv_list_keys", {**arguments, "include_values": with_values}))
        found += page.entries
        cursor = page.next_cursor
        if cursor is None:
            return found


def apply_steps(namespace: str, steps: Sequence[Step]) -> Rounds[Sequence[Any]]:
    """Apply steps in one message, all of them or none.

    Returns:
        Their results, in order.

    Raises:
        KVStoreError: A step was refused, for the reason that this error gives, so none was applied.
    """
    (outcome,) = yield [step_call(namespace, steps)]
    if isinstance(outcome, BatchRefusedError):
        raise outcome.error from outcome
    result = result_of(outcome)
    return result.results if isinstance(result, BatchResult) else [result]


def apply_each(namespace: str, steps: Sequence[Step]) -> Rounds[list[KVStoreError]]:
    """Apply steps separately, in as few messages as possible.

    Returns:
        The errors of those that were refused.
    """
    outcomes = yield [
        Call("kv_batch", {"namespace": namespace, "operations": list(chunk), "atomic": False})
        for chunk in chunked(steps, MAX_BATCH_STEPS)
    ]
    results = [result for outcome in outcomes for result in result_of(outcome).results]
    return [result for result in results if isinstance(result, KVStoreError)]


def step_call(namespace: str, steps: Sequence[Step]) -> Call:
    """Return the call that applies the steps. A single step needs no batch."""
    if len(steps) > 1:
        return Call("kv_batch", {"namespace": namespace, "operations": list(steps)})
    arguments = {option: value for option, value in steps[0].items() if option != "tool"}
    return Call(cast(str, steps[0]["tool"]), {"namespace": namespace, **arguments})


def _get_call(namespace: str, keys: Sequence[str]) -> Call:
    return step_call(namespace, [{"tool": "kv_get", "key": key} for key in keys])


def _entries(result: GetResult | BatchResult) -> Iterable[Any]:
    return [result] if isinstance(result, GetResult) else result.results
