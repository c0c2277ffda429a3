"""Second attempts: a read may be sent again, and what may write in disguise is not."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import Unanswered
from plan2_sidecar.errors import ConnectionLost, PermissionDenied, Problem, ReadOnly
from plan2_sidecar.guard.retries import RetryBudget
from plan2_sidecar.query import Query, Result
from plan2_sidecar.routing import Route, Rung
from plan2_sidecar.running import First, run
from plan2_sidecar.state import Sidecar

FOUND = Result(data=[], row_count=0)


@dataclass
class Member:
    """Answers what it was given to answer, one after the other."""

    answers: list[Result | Problem]
    asked: list[Query] = field(default_factory=list)
    retries: RetryBudget = field(default_factory=RetryBudget)

    async def execute(self, statement: Query, deadline: Deadline) -> Result:
        self.asked.append(statement)
        answer = self.answers.pop(0)
        if isinstance(answer, Problem):
            raise answer
        return answer


async def ran(
    member: Member, text: str, engine: Engine, first: BaseException | None = None
) -> tuple[Result, int]:
    sidecar = SimpleNamespace(
        fleet=SimpleNamespace(member=lambda _: member),
        metrics=SimpleNamespace(query=lambda *_: None),
        clock=lambda: 0.0,
    )
    route = Route(engine, Rung.TARGET, text)
    statement, deadline = Query(query=text), Deadline(5.0, lambda: 0.0)
    begun = None if first is None else First(cast(Any, member), first)
    return await run(cast(Any, sidecar), route, statement, deadline, 0.0, begun)


def test_the_stand_in_has_what_is_used_of_a_sidecar() -> None:
    assert {"fleet", "metrics", "clock"} <= set(Sidecar.__dataclass_fields__)


@pytest.mark.parametrize("engine", [Engine.POSTGRESQL, Engine.CLICKHOUSE])
async def test_a_read_whose_connection_broke_is_sent_once_more(engine: Engine) -> None:
    member = Member([ConnectionLost("broken"), FOUND])

    assert await ran(member, "SELECT 1", engine) == (FOUND, 2)
    assert [each.query for each in member.asked] == ["SELECT 1", "SELECT 1"]


async def test_postgresql_is_held_to_reading_the_second_time() -> None:
    member = Member([ConnectionLost("broken"), FOUND])

    await ran(member, "SELECT transfer(1, 2, 10)", Engine.POSTGRESQL)

    assert [each.read_only for each in member.asked] == [False, True]


@pytest.mark.parametrize("refusal", [ReadOnly("no"), PermissionDenied("no")])
async def test_what_cannot_be_held_to_reading_is_left_to_the_caller(refusal: Problem) -> None:
    member = Member([ConnectionLost("broken"), refusal])

    with pytest.raises(ConnectionLost) as told:
        await ran(member, "SELECT transfer(1, 2, 10)", Engine.POSTGRESQL)

    assert told.value.retryable is False


async def test_what_was_begun_and_not_answered_is_asked_for_the_first_time() -> None:
    member = Member([FOUND])

    assert await ran(member, "SELECT 1", Engine.POSTGRESQL, Unanswered()) == (FOUND, 1)
    assert [each.read_only for each in member.asked] == [False]


async def test_what_was_begun_and_failed_is_not_asked_again() -> None:
    member = Member([FOUND])

    with pytest.raises(PermissionDenied):
        await ran(member, "SELECT 1", Engine.POSTGRESQL, PermissionDenied("no"))
    assert member.asked == []
