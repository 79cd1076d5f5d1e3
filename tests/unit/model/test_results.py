"""Results and reports as the dicts that cross the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvworker.model import (
    DeleteResult,
    GetResult,
    IncrementResult,
    LedgerDrift,
    LedgerUsage,
    PruneReport,
    RecomputeReport,
    SetResult,
    SweepReport,
)


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (GetResult("n", "k", found=False), {"namespace": "n", "key": "k", "found": False}),
        (GetResult("n", "k", found=True, value=None), {"namespace": "n", "key": "k", "found": True, "value": None}),
        (
            GetResult("n", "k", found=True, value=[0], ttl_seconds=1.5),
            {"namespace": "n", "key": "k", "found": True, "value": [0], "ttl_seconds": 1.5},
        ),
        (SetResult("n", "k", None), {"namespace": "n", "key": "k", "value": None, "replayed": False}),
        (
            SetResult("n", "k", {"a": None}, 2.0, replayed=True),
            {"namespace": "n", "key": "k", "value": {"a": None}, "ttl_seconds": 2.0, "replayed": True},
        ),
        (IncrementResult("n", "k", 0), {"namespace": "n", "key": "k", "value": 0, "replayed": False}),
        (DeleteResult("n", "k", deleted=True), {"namespace": "n", "key": "k", "deleted": True, "replayed": False}),
        (SweepReport(1, 2, 3, complete=True), {"deleted_rows": 1, "freed_bytes": 2, "batches": 3, "complete": True}),
        (PruneReport(1, 2, complete=False), {"deleted_rows": 1, "batches": 2, "complete": False}),
        (
            LedgerUsage(None, 1, 2, None),
            {"namespace": None, "used_bytes": 1, "entry_count": 2, "quota_bytes": None, "record_count": 0},
        ),
    ],
)
def test_results_as_dicts(result: Any, wanted: dict[str, object]) -> None:
    assert result.to_dict() == wanted
    assert json.loads(json.dumps(result.to_dict())) == wanted


def test_recompute_report_as_a_dict() -> None:
    report = RecomputeReport(2, (LedgerDrift("n", 5, 3, 1, 1, 4, 2),), next_after="n")
    wanted = {
        "checked_namespaces": 2,
        "drifts": [
            {
                "namespace": "n",
                "recorded_bytes": 5,
                "actual_bytes": 3,
                "recorded_entries": 1,
                "actual_entries": 1,
                "recorded_records": 4,
                "actual_records": 2,
            }
        ],
        "next_after": "n",
        "complete": False,
    }
    assert json.loads(json.dumps(report.to_dict())) == wanted
    assert RecomputeReport(2).complete


@pytest.mark.parametrize(
    ("usage", "share", "limit"),
    [
        (LedgerUsage("n", 7, 1, 100, 1000, 96, 100), 0.96, "records"),
        (LedgerUsage("n", 7, 90, 100, 100, 5, 100), 0.9, "entries"),
        (LedgerUsage("n", 70, 1, 100, 100, 5, 100), 0.7, "bytes"),
        (LedgerUsage("n", 0, 0, 100, 100), 0.0, ""),
        (LedgerUsage("n", 7, 1, None), 0.0, ""),
    ],
)
def test_the_fullest_limit_has_a_name(usage: LedgerUsage, share: float, limit: str) -> None:
    assert (usage.fullness, usage.fullest_limit) == (share, limit)
