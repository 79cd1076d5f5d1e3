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
    assert grown_parts(samples_of(sizes, [50] * 4)) == ["growing"]


def test_a_table_may_follow_the_number_of_records() -> None:
    sizes = [{"records": size * MEGABYTE, "growing": 5 * number * MEGABYTE} for number, size in enumerate([5, 5, 7, 7])]
    assert grown_parts(samples_of(sizes, [50, 50, 70, 40])) == ["growing"]


def samples_of(sizes: list[dict[str, int]], records: list[int]) -> list[Sample]:
    return [Sample(100 * n, 1.0 * n, *each) for n, each in enumerate(zip(records, sizes, strict=True), 1)]


def test_a_short_soak_leaves_a_consistent_store() -> None:
    with soaked_sqlite() as store:
        samples = soak(store, 1000, rate=1e6)
        report = store.adapter.verify()
    assert samples[-1].writes >= 1000
    assert samples[-1].sizes["kv.sqlite-wal"] > 0
    assert report is not None
    assert report.problems == ()
    assert report.records == samples[-1].records >= 1000
