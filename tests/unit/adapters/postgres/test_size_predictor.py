from __future__ import annotations

from kvworker.adapters.postgres.size_predictor import SizePredictor


def test_two_writes_of_the_same_size_are_needed_to_expect_a_third() -> None:
    sizes = SizePredictor()
    assert not sizes.expects_same("n", "k")
    sizes.learn("n", "k", stayed=True)
    assert not sizes.expects_same("n", "k")
    sizes.learn("n", "k", stayed=True)
    assert sizes.expects_same("n", "k")


def test_one_of_another_size_is_enough_to_expect_nothing() -> None:
    sizes = SizePredictor()
    for _ in range(9):
        sizes.learn("n", "k", stayed=True)
    sizes.learn("n", "k", stayed=False)
    assert not sizes.expects_same("n", "k")
    sizes.learn("n", "k", stayed=True)
    assert not sizes.expects_same("n", "k")
