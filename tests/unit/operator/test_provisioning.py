"""Provisioning beside the reconcile: one attempt at a time, backed off, the outcome kept."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from plan2_contract.engines import Engine
from plan2_operator.provision import ProvisionError, Reason
from plan2_operator.provisioning import LAST_BACKOFF_SECONDS, Outcome, Provisioning
from plan2_operator.work_queue import Key

KEY = Key("trading", "prices")


class Server:
    """An engine whose provisioning fails with `error` while it is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.attempts = 0

    async def attempt(self) -> None:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
async def provisioning(clock: Clock, woken: list[Key]) -> AsyncIterator[Provisioning]:
    made = Provisioning(clock=clock, random=Random(1), wake=woken.append)
    yield made
    await made.close()


async def look(provisioning: Provisioning, server: Server, fingerprint: str = "a") -> Outcome:
    outcome = provisioning.look(KEY, Engine.MONGODB, fingerprint, server.attempt)
    await asyncio.sleep(0.01)
    return outcome


async def test_an_attempt_runs_beside_the_reconcile_and_wakes_it(
    provisioning: Provisioning, woken: list[Key]
) -> None:
    server = Server()

    first = await look(provisioning, server)
    second = await look(provisioning, server)

    assert (first.done, second.done) == (False, True)
    assert server.attempts == 1
    assert woken == [KEY]


async def test_what_was_provisioned_is_not_done_again_until_it_changes(
    provisioning: Provisioning,
) -> None:
    server = Server()
    for _ in range(5):
        await look(provisioning, server)
    assert server.attempts == 1

    await look(provisioning, server, "b")
    assert server.attempts == 2
    assert (await look(provisioning, server, "b")).done


async def test_an_unreachable_engine_is_tried_again_after_a_backoff(
    provisioning: Provisioning, clock: Clock
) -> None:
    server = Server()
    server.error = ProvisionError("no answer", reason=Reason.ENGINE_UNAVAILABLE, retry=True)
    await look(provisioning, server)

    again = await look(provisioning, server)
    assert again.error is server.error
    assert server.attempts == 1

    clock.now += 1.1
    server.error = None
    await look(provisioning, server)
    assert (await look(provisioning, server)).done
    assert server.attempts == 2


async def test_a_refusal_is_not_hammered(provisioning: Provisioning, clock: Clock) -> None:
    server = Server()
    server.error = ProvisionError("bad SQL", reason=Reason.BOOTSTRAP_FAILED, retry=False)
    await look(provisioning, server)
    for _ in range(120):
        clock.now += 5
        await look(provisioning, server)

    assert 600 / LAST_BACKOFF_SECONDS <= server.attempts <= 600 / LAST_BACKOFF_SECONDS + 4


async def test_a_change_is_tried_at_once_after_a_refusal(provisioning: Provisioning) -> None:
    server = Server()
    server.error = ProvisionError("bad SQL", reason=Reason.BOOTSTRAP_FAILED, retry=False)
    await look(provisioning, server)
    server.error = None

    await look(provisioning, server, "b")

    assert (await look(provisioning, server, "b")).done


async def test_a_bug_in_a_driver_becomes_the_engines_message(provisioning: Provisioning) -> None:
    server = Server()
    server.error = KeyError("surprise")
    await look(provisioning, server)

    outcome = await look(provisioning, server)

    assert outcome.error is not None
    assert "KeyError" in outcome.error.message
