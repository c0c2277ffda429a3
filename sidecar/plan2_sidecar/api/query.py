"""POST /api/v2/query, and /api/v1/query for the callers from before: one statement, one engine."""

from __future__ import annotations

from aiohttp import web

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api import accept, body, streams, wire
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.api.resource import Call
from plan2_sidecar.cache.answers import UNCACHED
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import InvalidRequest, Problem
from plan2_sidecar.query import Form, Query, Result
from plan2_sidecar.routing import Route, Rung
from plan2_sidecar.running import First, run
from plan2_sidecar.running import begin as start
from plan2_sidecar.server.later import Later
from plan2_sidecar.state import SIDECAR, Sidecar


async def query(request: web.Request) -> web.StreamResponse:
    """POST /api/v2/query: one statement on one engine."""
    sidecar = request.app[SIDECAR]
    started = sidecar.clock()
    content = await body.read(request, sidecar.settings.max_body_bytes, streams.OFFERED)
    asked = wire.decode(wire.QUERY_REQUEST, content)
    offered = accept.forms(request, streams.OFFERED)
    if offered[0] is not Form.JSON:
        streamed = await streams.respond(request, asked, offered, started)
        if streamed is not None:
            return streamed
    return _json(await answer(sidecar, asked, body.asked_ms(request), started))


def begin(
    sidecar: Sidecar, asked: wire.QueryRequest, header_ms: int | None, started: float
) -> Later | None:
    """`answer` without a task, for what can be asked at once; None where nothing was done."""
    options = asked.options
    if asked.target_database is None or options.cache is not None:
        return None
    route = sidecar.router.choose(asked.query, asked.target_database, asked.operation)
    deadline = body.deadline(started, header_ms, options.timeout_ms, sidecar.clock)
    statement = _statement(route, asked)
    later = Later()

    def told(outcome: Result | First, seconds: float) -> None:
        if isinstance(outcome, Result):
            took_us = int(seconds * 1_000_000)
            later.tell(Reply(200, wire.answer(outcome, route, attempts=1, took_us=took_us)))
        else:
            later.become(_go_on(sidecar, route, statement, deadline, started, outcome))

    cancel = start(sidecar, route, statement, deadline, started, told)
    if cancel is None:
        return None
    later.ends_by(cancel)
    return later


async def _go_on(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    deadline: Deadline,
    started: float,
    first: First,
) -> Reply:
    result, attempts = await run(sidecar, route, statement, deadline, started, first)
    return Reply(200, _answer(sidecar, result, route, attempts, started))


async def answer(
    sidecar: Sidecar, asked: wire.QueryRequest, header_ms: int | None, started: float
) -> bytes:
    """What the query answers, as JSON; raises Problem."""
    options = asked.options
    deadline = body.deadline(started, header_ms, options.timeout_ms, sidecar.clock)
    route = await sidecar.router.route(
        asked.query, asked.target_database, asked.operation, deadline
    )
    statement = _statement(route, asked)
    if options.cache is not None and route.engine not in UNCACHED:
        return await _cached(sidecar, route, statement, options.cache, deadline, started)
    result, attempts = await run(sidecar, route, statement, deadline, started)
    return _answer(sidecar, result, route, attempts, started)


def _statement(route: Route, asked: wire.QueryRequest) -> Query:
    options = asked.options
    return Query(
        query=route.query,
        params=asked.params,
        read_only=options.read_only,
        max_rows=options.max_rows or wire.DEFAULT_MAX_ROWS,
    )


def _answer(sidecar: Sidecar, result: Result, route: Route, attempts: int, started: float) -> bytes:
    took_us = int((sidecar.clock() - started) * 1_000_000)
    return wire.answer(result, route, attempts=attempts, took_us=took_us)


async def _cached(
    sidecar: Sidecar,
    route: Route,
    statement: Query,
    wanted: wire.CacheOptions,
    deadline: Deadline,
    started: float,
) -> bytes:
    if route.write and not statement.read_only:
        raise InvalidRequest(
            "options.cache is for reads, and this is not known to be one; send "
            "options.readOnly where it is"
        )

    async def ask() -> tuple[Result, int]:
        return await run(sidecar, route, statement, deadline, started)

    found = await sidecar.answers.answer(route.engine, statement, wanted.ttl_ms, ask, deadline)
    seconds = sidecar.clock() - started
    if not found.attempts:
        sidecar.metrics.query(route.engine, route.rung, "ok", seconds)
    return wire.answer(
        found.result,
        route,
        attempts=found.attempts,
        took_us=int(seconds * 1_000_000),
        cache=found.cache,
        degraded=found.degraded,
    )


async def v1_query(request: web.Request) -> web.Response:
    """POST /api/v1/query: SQL on PostgreSQL, answered as `{rows, rowCount, fields}`."""
    sidecar = request.app[SIDECAR]
    started = sidecar.clock()
    content = await body.read(request, sidecar.settings.max_body_bytes)
    asked = wire.decode(wire.V1_REQUEST, content)
    text = asked.sql or asked.query
    if not text:
        raise InvalidRequest("the statement is missing: send it as `sql` or `query`")
    deadline = body.deadline(started, body.asked_ms(request), None, sidecar.clock)
    route = Route(Engine.POSTGRESQL, Rung.TARGET, text)
    statement = Query(query=text, params=asked.params, max_rows=wire.DEFAULT_MAX_ROWS)
    result, _ = await run(sidecar, route, statement, deadline, started)
    return _json(wire.v1_answer(result))


PROBLEMS: tuple[type[Problem], ...] = (
    errors.UnknownEngine,
    errors.ParameterMismatch,
    errors.MultipleStatements,
    errors.ReadOnly,
    errors.PermissionDenied,
    errors.NotAcceptable,
    errors.Conflict,
    errors.QueryRejected,
    errors.EngineNotConfigured,
    errors.AmbiguousRoute,
    errors.EngineUnavailable,
    errors.BreakerOpen,
    errors.BulkheadFull,
    errors.StoreFull,
    errors.EngineAuthFailed,
    errors.DeadlineExceeded,
)
"""What running a statement may answer; every call that runs one has them."""


def _json(content: bytes) -> web.Response:
    return web.Response(body=content, content_type="application/json")


CALLS = (
    Call(
        method="POST",
        path="/api/v2/query",
        handler=query,
        body=wire.QueryRequest,
        answers={200: wire.QueryAnswer},
        problems=PROBLEMS,
        forms=(Form.NDJSON, Form.ARROW),
    ),
    Call(
        method="POST",
        path="/api/v1/query",
        handler=v1_query,
        body=wire.V1Request,
        answers={200: wire.V1Answer},
        problems=PROBLEMS,
    ),
)
