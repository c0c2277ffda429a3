"""The operator's health: alive while it beats, ready once it has started, metrics served."""

import aiohttp
import pytest

from plan2_operator.health import Pulse, served


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(limit_seconds=30, clock=clock)


async def test_liveness_fails_when_the_beats_stop(pulse: Pulse, clock: Clock) -> None:
    async with served(pulse, host="127.0.0.1", port=0) as port, aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{port}/livez"
        assert (await session.get(address)).status == 200
        clock.now += 31
        assert (await session.get(address)).status == 503
        pulse.beat()
        assert (await session.get(address)).status == 200


async def test_readiness_waits_for_the_start(pulse: Pulse) -> None:
    async with served(pulse, host="127.0.0.1", port=0) as port, aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{port}/readyz"
        assert (await session.get(address)).status == 503
        pulse.started = True
        assert (await session.get(address)).status == 200


async def test_the_operators_own_metrics_are_served(pulse: Pulse) -> None:
    pulse.beat()

    async with served(pulse, host="127.0.0.1", port=0) as port, aiohttp.ClientSession() as session:
        text = await (await session.get(f"http://127.0.0.1:{port}/metrics")).text()

    for name in ("reconcile_seconds", "reconcile_errors_total", "queue_depth", "last_tick"):
        assert f"plan2_operator_{name}" in text
