"""The guard in front of one engine: breaker, bulkhead, and the deadline as a last resort.

Engines keep the deadline in their own way (a cancel request, a server-side limit); the guard
only makes sure that no call outlives it. It decides what an outcome says about the engine.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import (
    BulkheadFull,
    ConnectionLost,
    DeadlineExceeded,
    EngineUnavailable,
    Problem,
    QueryRejected,
    StoreFull,
    Unavailable,
)
from plan2_sidecar.guard.breaker import Breaker
from plan2_sidecar.guard.bulkhead import Bulkhead

T = TypeVar("T")

# The engine's own cancellation gets this long to come back with a better answer.
SLACK_SECONDS = 0.1
# A caller in more of a hurry than this says nothing about the engine by running out of time.
TELLING_SECONDS = 0.25
# Calls that all travel over one connection take no place in the pool.
SHARED_PLACES = 1000


class Guard:
    """What every call to one engine passes through."""

    def __init__(self, engine: Engine, size: int, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.breaker = Breaker(engine, clock)
        self.bulkhead = Bulkhead(engine, size)
        self._shared = Bulkhead(engine, SHARED_PLACES)

    async def run(
        self, call: Callable[[], Awaitable[T]], deadline: Deadline, *, shared: bool = False
    ) -> T:
        """Await `call()`; every Problem it raises names the engine.

        `shared`: it is one command on a connection that carries many at once.
        """
        started = self._clock()
        probe = self.breaker.admit()
        bulkhead = self._shared if shared else self.bulkhead
        try:
            if not bulkhead.enters():
                await bulkhead.enter(deadline)
            try:
                with deadline.enforced(SLACK_SECONDS):
                    answer = await call()
            finally:
                bulkhead.leave()
        except Problem as problem:
            if problem.database is None:
                problem.database = self._engine
            self._judge(problem, self._clock() - started, probe)
            raise
        except BaseException:
            self.breaker.abandoned(probe=probe)
            raise
        self.breaker.succeeded()
        return answer

    def admit(self, *, shared: bool) -> bool | None:
        """Take a place at once or not at all.

        Whether the call is the breaker's probe, None where there is no place; raises BreakerOpen.
        `left` or `given_up` is its other end.
        """
        probe = self.breaker.admit()
        if (self._shared if shared else self.bulkhead).enters():
            return probe
        self.breaker.abandoned(probe=probe)
        return None

    def given_up(self, probe: bool, *, shared: bool) -> None:
        """A call that was admitted ended without saying anything about the engine."""
        (self._shared if shared else self.bulkhead).leave()
        self.breaker.abandoned(probe=probe)

    def left(self, problem: Problem | None, seconds: float, probe: bool, *, shared: bool) -> None:
        """A call that was admitted ended, well or with `problem`."""
        (self._shared if shared else self.bulkhead).leave()
        if problem is None:
            self.breaker.succeeded()
            return
        problem.database = problem.database or self._engine
        self._judge(problem, seconds, probe)

    def _judge(self, problem: Problem, seconds: float, probe: bool) -> None:
        hurried = isinstance(problem, DeadlineExceeded) and seconds < TELLING_SECONDS
        match problem:
            case QueryRejected() | StoreFull():
                self.breaker.succeeded()
            case DeadlineExceeded() | Unavailable() if not hurried and not isinstance(
                problem, BulkheadFull
            ):
                unreachable = isinstance(problem, EngineUnavailable) and not isinstance(
                    problem, ConnectionLost
                )
                self.breaker.failed(unreachable=unreachable, probe=probe)
            case _:
                self.breaker.abandoned(probe=probe)
