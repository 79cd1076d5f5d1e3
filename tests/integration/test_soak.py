"""The soak of benchmarks/soak.py: its verdict, and a short one."""

from __future__ import annotations

from benchmarks.soak import Sample, grown_parts, soak, soaked_sqlite

MEGABYTE = 1_000_000


def test_a_table_that_was_larger_in_the_second_half_grew() -> None:
    sizes = [
        {"steady": 5 * MEGABYTE, "growing": 5 * MEGABYTE, "small": 10},
        {"steady": 6 * MEGABYTE, "growing": 6 * MEGABYTE, "small": 10},
        {"steady": 5 * MEGABYTE, "growing": 7 * MEGABYTE, "small": 90},
        {"steady": 6 * MEGABYTE, "growing": 6 * MEGABYTE, "small": 10},
    ]
    samples = [Sample(100 * number, 1.0 * number, each) for number, each in enumerate(sizes, 1)]
    assert grown_parts(samples) == ["growing"]


def test_a_short_soak_leaves_a_consistent_store() -> None:
    with soaked_sqlite() as (adapter, read_sizes):
        samples = soak(adapter, read_sizes, 1000, rate=1e6)
        report = adapter.verify()
    assert samples[-1].writes >= 1000
    assert samples[-1].sizes["kv.sqlite-wal"] > 0
    assert report is not None
    assert report.problems == ()
    assert report.records >= 1000
