"""Mode read: every operation at once, each as soon as what it refers to is there; no log."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import OperationFailed, Problem
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result
from plan2_sidecar.sagas import references
from plan2_sidecar.sagas.log import encoded
from plan2_sidecar.sagas.plan import Plan
from plan2_sidecar.sagas.record import op_id

MOST_ROWS = 10_000


@dataclass(frozen=True)
class Read:
    """One operation's answer, or its problem."""

    result: Result | None
    problem: Problem | None
    took_us: int


async def run(
    plan: Plan, identity: str, fleet: Fleet, deadline: Deadline, clock: Clock = time.monotonic
) -> list[Read]:
    """A `Read` for each operation, in the order of the request. There is no snapshot.

    Raises EngineNotConfigured before anything runs.
    """
    for engine in plan.engines:
        fleet.member(engine)
    tasks: dict[str, asyncio.Task[Read]] = {}

    async def one(position: int) -> Read:
        step, started = plan.steps[position], clock()
        answers: dict[str, Any] = {}
        try:
            for name in step.needs:
                needed = (await tasks[name]).result
                if needed is None:
                    raise OperationFailed(f"{name}, which it needs, has no answer")
                answers[name] = msgspec.json.decode(encoded(needed, most_bytes=None))
            own, place = op_id(identity, step), step.do.place
            query = Query(
                query=references.resolve(step.do.query, own, answers.get, f"{place}.query"),
                params=references.resolve(step.do.params, own, answers.get, f"{place}.params"),
                read_only=True,
                max_rows=MOST_ROWS,
            )
            result = await fleet.member(step.do.engine).execute(query, deadline)
        except Problem as problem:
            return Read(None, problem, _microseconds(clock() - started))
        return Read(result, None, _microseconds(clock() - started))

    async with asyncio.TaskGroup() as group:
        for position in plan.order:
            # In this order each finds the tasks that it needs.
            tasks[plan.steps[position].id] = group.create_task(one(position))
    return [tasks[step.id].result() for step in plan.steps]


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
