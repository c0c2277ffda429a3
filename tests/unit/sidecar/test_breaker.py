"""The circuit breaker: closed until an engine keeps failing, open for a rest, then tried once."""

import pytest

from fixtures.fix_clock import HandClock
from plan2_contract.engines import Engine
from plan2_sidecar.errors import BreakerOpen
from plan2_sidecar.guard.breaker import Breaker, State


@pytest.fixture
def breaker(clock: HandClock) -> Breaker:
    return Breaker(Engine.POSTGRESQL, clock, chance=lambda: 0.0)


def fail(breaker: Breaker, times: int, *, unreachable: bool = True) -> None:
    for _ in range(times):
        breaker.failed(unreachable=unreachable, probe=breaker.admit())


def test_refuses_the_sixth_caller_after_five_failed_connections(breaker: Breaker) -> None:
    fail(breaker, 5)

    with pytest.raises(BreakerOpen) as refusal:
        breaker.admit()

    assert refusal.value.retry_after_ms == 1000
    assert refusal.value.retryable is True
    assert refusal.value.database is Engine.POSTGRESQL


def test_four_failures_are_not_enough(breaker: Breaker) -> None:
    fail(breaker, 4)

    assert breaker.state is State.CLOSED


def test_a_success_between_starts_the_count_of_failed_connections_again(breaker: Breaker) -> None:
    for _ in range(20):
        breaker.succeeded()
    fail(breaker, 4)
    breaker.succeeded()
    fail(breaker, 4)

    assert breaker.state is State.CLOSED


def test_opens_when_half_of_the_calls_in_the_window_fail(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.succeeded()
    fail(breaker, 4, unreachable=False)
    assert breaker.state is State.CLOSED

    fail(breaker, 1, unreachable=False)

    assert breaker.state is State.OPEN


def test_failures_that_left_the_window_are_forgotten(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 4, unreachable=False)
    clock.now += 11.0
    fail(breaker, 4, unreachable=False)

    assert breaker.state is State.CLOSED


def test_lets_one_probe_through_once_the_rest_is_over(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 5)
    clock.now += 1.0
    assert breaker.state is State.HALF_OPEN

    assert breaker.admit() is True

    with pytest.raises(BreakerOpen):
        breaker.admit()


def test_the_probes_success_closes_it(breaker: Breaker, clock: HandClock) -> None:
    fail(breaker, 5)
    clock.now += 1.0
    breaker.admit()

    breaker.succeeded()

    assert breaker.state is State.CLOSED
    assert breaker.admit() is False


def test_the_rest_doubles_with_every_failed_probe_up_to_thirty_seconds(
    breaker: Breaker, clock: HandClock
) -> None:
    fail(breaker, 5)
    rests = []
    for _ in range(7):
        with pytest.raises(BreakerOpen) as refusal:
            breaker.admit()
        rests.append(refusal.value.retry_after_ms)
        clock.now += 30.0
        fail(breaker, 1)

    assert rests == [1000, 2000, 4000, 8000, 16000, 30000, 30000]


def test_a_probe_that_said_nothing_lets_the_next_call_be_the_probe(
    breaker: Breaker, clock: HandClock
) -> None:
    fail(breaker, 5)
    clock.now += 1.0

    breaker.abandoned(probe=breaker.admit())

    assert breaker.admit() is True


def test_a_late_failure_from_before_does_not_decide_the_probe(
    breaker: Breaker, clock: HandClock
) -> None:
    fail(breaker, 5)
    clock.now += 1.0
    breaker.admit()

    breaker.failed(unreachable=True, probe=False)
    breaker.succeeded()

    assert breaker.state is State.CLOSED


def test_sidecars_do_not_come_back_in_the_same_instant(clock: HandClock) -> None:
    breaker = Breaker(Engine.POSTGRESQL, clock, chance=lambda: 1.0)
    fail(breaker, 5)

    with pytest.raises(BreakerOpen) as refusal:
        breaker.admit()

    assert refusal.value.retry_after_ms == 1200
