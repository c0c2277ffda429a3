"""POST /api/v2/route: which engine a query would go to, and why; nothing is run."""

import msgspec
from aiohttp import web

from plan2_contract.engines import Engine
from plan2_sidecar import errors, routing
from plan2_sidecar.api import body, resource, wire
from plan2_sidecar.api.resource import Call
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import AmbiguousRoute
from plan2_sidecar.routing import Rung
from plan2_sidecar.state import SIDECAR, Sidecar


class RouteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where the query would go. Where that cannot be told `database` and `route` are null, and
    `candidates` are the engines it fits. `write` is true when in doubt.
    """

    database: Engine | None
    route: Rung | None
    write: bool
    candidates: list[Engine]
    reason: str


async def explain(request: web.Request) -> web.Response:
    """Say which engine a query would go to, and why."""
    sidecar = request.app[SIDECAR]
    started = sidecar.clock()
    asked = await resource.decoded(request, wire.QUERY_REQUEST)
    deadline = body.deadline(
        started, body.asked_ms(request), asked.options.timeout_ms, sidecar.clock
    )
    return resource.json(await explained(sidecar, asked, deadline))


async def explained(sidecar: Sidecar, asked: wire.QueryRequest, deadline: Deadline) -> RouteAnswer:
    """The answer; raises UnknownEngine."""
    try:
        route = await sidecar.router.route(
            asked.query, asked.target_database, asked.operation, deadline
        )
    except AmbiguousRoute as ambiguous:
        candidates = [Engine(name) for name in ambiguous.members["candidates"]]
        return RouteAnswer(
            database=None,
            route=None,
            write=any(routing.writes(engine, asked.query) for engine in candidates),
            candidates=candidates,
            reason=ambiguous.detail,
        )
    return RouteAnswer(
        database=route.engine,
        route=route.rung,
        write=route.write,
        candidates=[route.engine],
        reason=route.reason,
    )


CALLS = (
    Call(
        method="POST",
        path="/api/v2/route",
        handler=explain,
        body=wire.QueryRequest,
        answers={200: RouteAnswer},
        problems=(errors.UnknownEngine,),
    ),
)
