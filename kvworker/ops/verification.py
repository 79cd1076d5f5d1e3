"""Verifies the store of every adapter in use, and says what to do about a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kvworker.adapters.providers import adapters_in_use
from kvworker.model import StoreProblem, VerifyReport
from kvworker.ops.database import open_adapter
from kvworker.settings import Settings

_RECOMPUTE: Final = "run `kvworker recompute`, which sets ledgers to what their entries and records use"
#: The advice on a problem, by its check.
ADVICE: Final[Mapping[str, str]] = {
    "schema": "make what is missing as the migrations do, or restore a backup; the rows were not checked",
    "entry": "set or delete each of these entries; one with an invalid name only SQL can delete, and then run"
    " `kvworker recompute`",
    "record": "a retry of such an operation may get a wrong answer; delete these rows of kv_records, and then run"
    " `kvworker recompute`",
    "ledger": _RECOMPUTE,
    "shares": _RECOMPUTE,
    "quota": f"{_RECOMPUTE}; then delete entries or raise the quota",
    "totals": _RECOMPUTE,
}


@dataclass(frozen=True)
class VerifiedStore:
    """An adapter's name and the findings in its store; ``report`` is None if the adapter has no such check."""

    adapter: str
    report: VerifyReport | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.report is None or self.report.problem_count == 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data, each problem with what to do about it."""
        if self.report is None:
            return {"adapter": self.adapter, "checked": False}
        problems = [{**asdict(problem), "advice": advice_on(problem)} for problem in self.report.problems]
        return {"adapter": self.adapter, "checked": True, **asdict(self.report), "problems": problems}


def advice_on(problem: StoreProblem) -> str:
    """Say what to do about a problem."""
    return ADVICE.get(problem.check, "")


def verify_store(settings: Settings, on_progress: Callable[[int], None]) -> Iterator[VerifiedStore]:
    """Check the store of every adapter in use, including those that personas name. It changes nothing.

    Args:
        settings: The settings that configure the adapters.
        on_progress: Called now and then with the number of entries of the current store that were checked.

    Raises:
        ConfigurationError: No database is configured.
        SchemaError: A database has no schema, or the schema of another version.
        StoreUnavailableError: A database cannot be reached.
    """
    for name in adapters_in_use(settings):
        with open_adapter(settings, name) as adapter:
            yield VerifiedStore(name, adapter.verify(on_progress))
