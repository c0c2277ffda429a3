"""Running one statement on the engine it was routed to: second attempts, and what is counted.

It knows nothing of HTTP. What a call may try again is decided here, and only here: a read whose
connection broke, within the engine's budget, and anything that was refused for its password,
where a newer connection has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import Cancel, Unanswered
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    InvalidRequest,
    PermissionDenied,
    Problem,
    ReadOnly,
)
from plan2_sidecar.fleet import Member
from plan2_sidecar.guard.retries import pause
from plan2_sidecar.query import Query, Result
from plan2_sidecar.routing import Route
from plan2_sidecar.state import Sidecar

T = TypeVar("T")


class CutShort(Exception):
    """An answer that had begun ended so: nothing is tried again."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def run(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    deadline: Deadline,
    started: float,
    first: First | None = None,
) -> Coroutine[Any, Any, tuple[Result, int]]:
    """The result and the number of attempts; every Problem says whether to try again."""

    def execute(member: Member, asked: Query) -> Awaitable[Result]:
        return member.execute(asked, deadline)

    return attempted(sidecar, route, statement, execute, started, first)


class First(NamedTuple):
    """A first attempt that has ended so."""

    member: Member
    raised: BaseException


def begin(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    deadline: Deadline,
    started: float,
    told: Callable[[Result | First, float], None],
) -> Cancel | None:
    """`run` without a task; None where it has to be awaited: nothing was done then.

    `told` gets the result of the first attempt, or what `run` goes on from, and the seconds since
    `started`. What is returned cancels.
    """
    member = sidecar.fleet.members.get(route.engine)
    if member is None or route.write:
        return None

    def over(outcome: Result | BaseException) -> None:
        seconds = sidecar.clock() - started
        member.retries.called()
        if isinstance(outcome, Result):
            sidecar.metrics.query(route.engine, route.rung, "ok", seconds)
            told(outcome, seconds)
        else:
            told(First(member, outcome), seconds)

    return member.begin(statement, deadline, over)


async def attempted(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    work: Callable[[Member, Query], Awaitable[T]],
    started: float,
    first: First | None = None,
) -> tuple[T, int]:
    """What `work` makes of the engine, and the number of attempts; raises Problem or CutShort."""
    code = "ok"
    try:
        answered = await _twice(sidecar, route, statement, work, first)
        if changes(route, statement):
            await sidecar.answers.wrote(route.engine, statement)
        return answered
    except Problem as problem:
        code = _said(problem, route, statement).code
        if isinstance(problem, DeadlineExceeded | ConnectionLost):
            _perhaps(sidecar, route, statement)
        raise
    except CutShort as cut:
        _perhaps(sidecar, route, statement)
        code = _said(cut.problem, route, statement).code
        raise
    except RecursionError:
        code = InvalidRequest.code
        raise InvalidRequest(
            "the query or its params are nested too deeply", database=route.engine
        ) from None
    except BaseException:
        code = "cancelled"
        _perhaps(sidecar, route, statement)
        raise
    finally:
        seconds = sidecar.clock() - started
        sidecar.metrics.query(route.engine, route.rung, code, seconds)


async def _twice(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    work: Callable[[Member, Query], Awaitable[T]],
    first: First | None,
) -> tuple[T, int]:
    try:
        if first is None:
            member = sidecar.fleet.member(route.engine)
            member.retries.called()
        else:
            member = first.member
            if not isinstance(first.raised, Unanswered):
                raise first.raised
        return await work(member, statement), 1
    except EngineAuthFailed:
        # Nothing was run. A rotated connection that the next look would find is looked up now.
        sidecar.fleet.refresh()
        renewed = sidecar.fleet.member(route.engine)
        if renewed is member:
            raise
        return await work(renewed, statement), 2
    except ConnectionLost as lost:
        # An engine that restarted breaks every connection it had; a read may ask once more.
        if not _repeatable(statement, route) or not member.retries.spend():
            raise
        await asyncio.sleep(pause())
        try:
            return await work(member, _held_to_reading(statement, route)), 2
        except (PermissionDenied, ReadOnly):
            if statement.read_only:
                raise
            lost.retryable = False
            raise lost from None


def _held_to_reading(statement: Query, route: Route) -> Query:
    """What is sent once more: a function of PostgreSQL's may write, and no word of it says so."""
    if route.engine is not Engine.POSTGRESQL or statement.read_only:
        return statement
    return msgspec.structs.replace(statement, read_only=True)


def _said(problem: Problem, route: Route, statement: Query) -> Problem:
    """The problem, with the word on whether to try again that only the route has."""
    if isinstance(problem, DeadlineExceeded | ConnectionLost):
        problem.database = route.engine
        problem.retryable = problem.retryable is not False and _repeatable(statement, route)
    return problem


def changes(route: Route, statement: Query) -> bool:
    """Whether what the engine holds may be another afterwards."""
    return route.write and not statement.read_only


def _perhaps(sidecar: Sidecar, route: Route, statement: Query) -> None:
    """Its outcome is not known: answers that were kept must not outlive a write."""
    if changes(route, statement):
        sidecar.answers.wrote_perhaps(route.engine, statement)


def _repeatable(statement: Query, route: Route) -> bool:
    return not changes(route, statement)
