from __future__ import annotations

from kvworker.adapters.postgres.size_predictor import SizePredictor


def test_two_writes_of_the_same_size_are_needed_to_expect_a_third() -> None:
    predictor = SizePredictor()
    assert not predictor.expects_same_size("n", "k")
    predictor.record_write("n", "k", kept_size=True)
    assert not predictor.expects_same_size("n", "k")
    predictor.record_write("n", "k", kept_size=True)
    assert predictor.expects_same_size("n", "k")


def test_one_write_of_another_size_is_enough_to_expect_nothing() -> None:
    predictor = SizePredictor()
    for _ in range(9):
        predictor.record_write("n", "k", kept_size=True)
    predictor.record_write("n", "k", kept_size=False)
    assert not predictor.expects_same_size("n", "k")
    predictor.record_write("n", "k", kept_size=True)
    assert not predictor.expects_same_size("n", "k")
