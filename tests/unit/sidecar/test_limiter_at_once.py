"""Checks that wait for the store without a task: decided, given up, left, and each told once."""

import asyncio
from typing import Any

from fixtures.fix_limits import Limits
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import EngineNotConfigured, EngineUnavailable
from plan2_sidecar.limits.model import Algorithm, RateLimitCheck, RateLimitDecision, Source
from plan2_sidecar.limits.waiting import Waiting


class Told:
    """What a check that was begun is told."""

    def __init__(self, limits: Limits, seconds: float = 5.0, **members: Any) -> None:
        self.outcomes: list[RateLimitDecision | Exception] = []
        check = RateLimitCheck(**{"client_id": "c", "limit": 3, **members})
        deadline = Deadline.after(seconds, limits.clock)
        self._once = asyncio.Event()
        self.waiting: Waiting | None = limits.limiter.begin(check, deadline, self._tell)

    def _tell(self, outcome: RateLimitDecision | Exception) -> None:
        self.outcomes.append(outcome)
        self._once.set()

    async def outcome(self) -> RateLimitDecision | Exception:
        async with asyncio.timeout(5):
            await self._once.wait()
        assert len(self.outcomes) == 1
        return self.outcomes[0]

    async def decision(self) -> RateLimitDecision:
        outcome = await self.outcome()
        assert isinstance(outcome, RateLimitDecision)
        return outcome


async def test_those_who_stand_in_line_are_decided_in_order(limits: Limits) -> None:
    told = [Told(limits) for _ in range(5)]

    decided = [await each.decision() for each in told]

    assert [each.allowed for each in decided] == [True, True, True, False, False]
    assert [each.source for each in decided] == [Source.STORE] * 5
    assert limits.crowd.joined == 5


async def test_without_a_store_the_fallback_decides(limits: Limits) -> None:
    limits.store.problem = EngineUnavailable("nobody is there")

    decision = await Told(limits).decision()

    assert (decision.source, decision.degraded) == (Source.FALLBACK, True)


async def test_what_no_fallback_helps_with_is_told(limits: Limits) -> None:
    limits.store.problem = EngineNotConfigured("there is none")

    assert await Told(limits).outcome() is limits.store.problem


async def test_a_store_that_hangs_is_given_up_at_the_deadline(limits: Limits) -> None:
    limits.store.gate.clear()

    hurried, patient = Told(limits, 0.05), Told(limits)

    assert (await hurried.decision()).source is Source.FALLBACK
    assert not patient.outcomes
    limits.store.gate.set()
    assert (await patient.decision()).source is Source.STORE
    assert len(hurried.outcomes) == 1


async def test_who_leaves_is_told_nothing_and_holds_up_nobody(limits: Limits) -> None:
    first, second = Told(limits), Told(limits)
    assert first.waiting is not None

    first.waiting.leave()

    assert (await second.decision()).allowed
    assert not first.outcomes


async def test_one_that_cannot_be_told_is_not_the_others_fault(limits: Limits) -> None:
    def fails(outcome: RateLimitDecision | Exception) -> None:
        raise RuntimeError("told in vain")

    check = RateLimitCheck(client_id="c", limit=3)
    limits.limiter.begin(check, Deadline.after(5.0, limits.clock), fails)

    assert (await Told(limits).decision()).allowed


async def test_at_the_end_who_waits_gets_the_fallback(limits: Limits) -> None:
    limits.store.gate.clear()
    told = Told(limits)
    await asyncio.sleep(0.01)

    await limits.limiter.close()

    assert (await told.decision()).source is Source.FALLBACK


async def test_what_needs_more_than_a_line_is_to_be_awaited(limits: Limits) -> None:
    assert Told(limits, algorithm=Algorithm.GCRA).waiting is None
    assert Told(limits, 0.0).waiting is None
    await asyncio.sleep(0.01)
    assert limits.store.scripts == 0
