"""POST /api/v2/batch: many queries at once, each answered as it would be alone.

One batch takes at most half of an engine's places, so that others still get one; the queries
beyond wait for their turn, on their own deadline.
"""

import asyncio
import logging
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from plan2_contract.engines import Engine
from plan2_sidecar.api import body, problems, query, wire
from plan2_sidecar.api.resource import Call
from plan2_sidecar.errors import Internal, Problem
from plan2_sidecar.state import SIDECAR, Sidecar

LOG = logging.getLogger(__name__)


class BatchResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One query's answer, or its problem; `status` is what it would have been alone."""

    status: int
    data: Any | UnsetType = UNSET
    row_count: int | UnsetType = UNSET
    meta: wire.AnswerMeta | UnsetType = UNSET
    problem: problems.ProblemDocument | UnsetType = UNSET


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of POST /api/v2/batch, in the order of the queries."""

    results: list[BatchResult]


async def batch(request: web.Request) -> web.Response:
    """POST /api/v2/batch: at most 100 queries, run concurrently."""
    sidecar = request.app[SIDECAR]
    started = sidecar.clock()
    content = await body.read(request, sidecar.settings.max_body_bytes)
    asked = wire.decode(wire.BATCH_REQUEST, content)
    results = await run(sidecar, asked.queries, body.asked_ms(request), started)
    whole = b'{"results":[' + b",".join(results) + b"]}"
    return web.Response(body=whole, content_type="application/json")


async def run(
    sidecar: Sidecar, queries: list[wire.QueryRequest], header_ms: int | None, started: float
) -> list[bytes]:
    """A BatchResult for each query, as JSON, in their order."""
    turns = _Turns(sidecar)
    return await asyncio.gather(
        *(_result(sidecar, asked, header_ms, started, turns) for asked in queries)
    )


class _Turns:
    """How many queries of one batch an engine has at a time."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._places: dict[Engine, asyncio.Semaphore] = {}

    def of(self, engine: Engine) -> asyncio.Semaphore:
        """Raises EngineNotConfigured."""
        if engine not in self._places:
            size = self._sidecar.fleet.member(engine).guard.bulkhead.size
            self._places[engine] = asyncio.Semaphore(max(1, size // 2))
        return self._places[engine]


async def _result(
    sidecar: Sidecar,
    asked: wire.QueryRequest,
    header_ms: int | None,
    started: float,
    turns: _Turns,
) -> bytes:
    try:
        deadline = body.deadline(started, header_ms, asked.options.timeout_ms, sidecar.clock)
        route = await sidecar.router.route(
            asked.query, asked.target_database, asked.operation, deadline
        )
        turn = turns.of(route.engine)
        async with deadline.enforced():
            await turn.acquire()
        try:
            answer = await query.answer(sidecar, asked, header_ms, started)
        finally:
            turn.release()
        return b'{"status":200,' + answer[1:]
    except Problem as problem:
        return _told(problem)
    except Exception:
        LOG.exception("a query of a batch failed")
        return _told(Internal("the sidecar's log says more"))


def _told(problem: Problem) -> bytes:
    return wire.encode({"status": problem.status, "problem": problem.document()})


CALLS = (
    Call(
        method="POST",
        path="/api/v2/batch",
        handler=batch,
        body=wire.BatchRequest,
        answers={200: BatchAnswer},
        problems=(),
    ),
)
