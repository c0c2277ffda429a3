"""The running sidecar: its routes, its listeners, its once-a-second look around, its end.

Listeners open in this order: 7420 on localhost, the Unix socket, 7421 for probes and metrics;
so whoever sees the last one can use them all.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from plan2_contract.engines import Engine
from plan2_sidecar import lean
from plan2_sidecar.api import (
    analytics,
    batch,
    cache,
    config,
    cross_db,
    openapi,
    problems,
    query,
    rate_limit,
    registry,
    route,
    sessions,
    short,
    status,
)
from plan2_sidecar.api.door import Door
from plan2_sidecar.api.listener import Runner
from plan2_sidecar.connections import Connections
from plan2_sidecar.engines.base import EngineClient
from plan2_sidecar.errors import Internal, Problem
from plan2_sidecar.fleet import Connection, Fleet, open_client
from plan2_sidecar.settings import Settings
from plan2_sidecar.state import SIDECAR, Part, Sidecar
from plan2_sidecar.tokens import Tokens

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# The modules of the API, each with its CALLS.
RESOURCES = (
    query,
    batch,
    route,
    rate_limit,
    cache,
    sessions,
    config,
    analytics,
    registry,
    cross_db,
    status,
    openapi,
)
# Containers of one pod run as different users; what guards the socket is the token.
SOCKET_MODE = 0o666


def build(sidecar: Sidecar) -> web.Application:
    """The API."""
    app = web.Application(
        middlewares=[_edge(sidecar)], client_max_size=sidecar.settings.max_body_bytes
    )
    app[SIDECAR] = sidecar
    calls = [call for resource in RESOURCES for call in resource.CALLS]
    for call in calls:
        app.router.add_route(call.method, call.path, call.handler)
    openapi.serving(app, calls)
    app.cleanup_ctx.append(_lifetime)
    return app


def build_metrics(sidecar: Sidecar) -> web.Application:
    """What kubelet and Prometheus call: no token, no Host check, nothing else."""
    app = web.Application()
    app[SIDECAR] = sidecar
    app.router.add_get("/metrics", status.metrics)
    app.router.add_get("/livez", status.livez)
    app.router.add_get("/readyz", status.readyz)
    return app


async def serve(settings: Settings, connections: Connections) -> None:
    """Listen until SIGTERM or SIGINT, then let calls finish and close the pools.

    Raises OSError when a listener cannot be opened.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tokens = Tokens(settings.api_token, settings.api_token_file)
    fleet = Fleet(connections, settings.required_engines, _open)
    sidecar = Sidecar(settings, fleet, tokens)
    async with listening(sidecar):
        lean.settle()
        await stop.wait()
        sidecar.stopping = True
        LOG.info("stopping")


async def _open(engine: Engine, connection: Connection) -> EngineClient:
    client = await open_client(engine, connection)
    # Its driver is there to stay.
    lean.settle()
    return client


@contextlib.asynccontextmanager
async def listening(sidecar: Sidecar) -> AsyncIterator[tuple[web.AppRunner, web.AppRunner]]:
    """All listeners open inside, all closed after: the API first, the probes last."""
    settings = sidecar.settings
    probes = web.AppRunner(build_metrics(sidecar), access_log=None, shutdown_timeout=1.0)
    api = Runner(
        build(sidecar),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=settings.stop_grace_seconds,
    )
    api.hot = short.hot(sidecar, Door(settings, sidecar.tokens))
    async with contextlib.AsyncExitStack() as stack:
        await probes.setup()
        stack.push_async_callback(probes.cleanup)
        await api.setup()
        stack.push_async_callback(api.cleanup)
        await web.TCPSite(api, settings.host, settings.port).start()
        if settings.socket is not None:
            await web.SockSite(api, _bind(settings.socket)).start()
            stack.callback(settings.socket.unlink, missing_ok=True)
        await web.TCPSite(probes, settings.metrics_host, settings.metrics_port).start()
        LOG.info("listening on %s", [*api.addresses, *probes.addresses])
        yield api, probes


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            # Left by a sidecar that was killed.
            path.unlink()
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
    except OSError as error:
        listener.close()
        # A path that is too long has words and no number.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return listener


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    """Read the connections before listening, look around while serving, close pools at the end."""
    sidecar = app[SIDECAR]
    sidecar.fleet.refresh()
    looking = [asyncio.create_task(_look_around(sidecar))]
    looking.extend(asyncio.create_task(_keep_looking(part)) for part in sidecar.parts)
    yield
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    for part in reversed(sidecar.parts):
        try:
            await part.close()
        except Exception:
            LOG.exception("%s did not end well", type(part).__name__)
    await sidecar.fleet.close()


async def _look_around(sidecar: Sidecar) -> None:
    """Notice new connections and tokens; ping the required engines until they answer once."""
    while True:
        try:
            sidecar.fleet.refresh()
            sidecar.tokens.poll()
            await sidecar.fleet.check_required()
        except Exception:
            LOG.exception("looking around failed; it goes on")
        await asyncio.sleep(LOOK_SECONDS)


async def _keep_looking(part: Part) -> None:
    while True:
        try:
            await part.look()
        except Exception:
            LOG.exception("%s failed; it goes on", type(part).__name__)
        await asyncio.sleep(LOOK_SECONDS)


def _edge(sidecar: Sidecar) -> Middleware:
    """The one layer around every handler: the door, errors as problems, the request counter."""
    door = Door(sidecar.settings, sidecar.tokens)

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer: web.StreamResponse
        try:
            door.admit(request)
            answer = await handler(request)
        except Problem as problem:
            answer = problems.response(problem)
        except web.HTTPException as error:
            answer = problems.from_http(error, request)
        except Exception:
            LOG.exception("%s %s failed", request.method, request.path)
            answer = problems.response(Internal("the sidecar's log says more"))
        resource = request.match_info.route.resource
        if resource is not None:
            sidecar.metrics.request(resource.canonical, request.method, answer.status)
        else:
            # A caller's own words never become labels: their number has no bound.
            sidecar.metrics.request("unknown", "unknown", answer.status)
        return answer

    return edge
