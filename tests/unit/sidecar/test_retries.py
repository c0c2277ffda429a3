"""The retry budget: a tenth of the calls, with a little put by."""

import pytest

from plan2_sidecar.guard.retries import RetryBudget, pause


def test_a_few_are_allowed_from_the_start_and_no_more() -> None:
    budget = RetryBudget()

    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]


def test_ten_calls_earn_one() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass

    for _ in range(11):
        budget.called()

    assert [budget.spend(), budget.spend()] == [True, False]


def test_what_is_put_by_has_a_bound() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.called()

    assert sum(budget.spend() for _ in range(100)) == 10


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.02), (0.5, 0.06), (1.0, 0.1)])
def test_a_second_attempt_waits_a_little_and_not_all_the_same(
    chance: float, seconds: float
) -> None:
    assert pause(lambda: chance) == pytest.approx(seconds)
