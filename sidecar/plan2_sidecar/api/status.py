"""How the sidecar and the engines are: probes, health, and the list of databases."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from plan2_contract.engines import CAPABILITIES, Engine
from plan2_sidecar import health
from plan2_sidecar.api import wire
from plan2_sidecar.api.resource import Call
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.health import Overall
from plan2_sidecar.state import SIDECAR, Sidecar

# A state learnt this recently is not asked for again.
FRESH_SECONDS = 5.0


async def livez(request: web.Request) -> web.Response:
    """GET /livez: the process serves; no database has a say."""
    return _json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a connection document was read, required engines were reached once."""
    reason = _not_ready(request.app[SIDECAR])
    if reason is None:
        return _json({"status": "ready"})
    return _json({"status": "not ready", "reason": reason}, status=503)


async def databases(request: web.Request) -> web.Response:
    """GET /api/v2/databases: every engine Plan2 knows, and what this sidecar has of it."""
    fleet = request.app[SIDECAR].fleet
    await fleet.check(list(fleet.members.values()), FRESH_SECONDS)
    engines = {engine: _database(engine, fleet.members.get(engine)) for engine in Engine}
    return _json({"engines": engines})


async def health_all(request: web.Request) -> web.Response:
    """GET /api/v2/health/all: engines not called lately are pinged, all at once."""
    fleet = request.app[SIDECAR].fleet
    status = await _look(fleet)
    engines = {engine: _state(member) for engine, member in fleet.members.items()}
    strict = request.query.get("strict") in ("1", "true")
    code = 503 if strict and status is not Overall.OK else 200
    return _json({"status": status, "engines": engines}, status=code)


async def health_summary(request: web.Request) -> web.Response:
    """GET /health and /api/v1/health: open to all, so it says no more than up or down."""
    fleet = request.app[SIDECAR].fleet
    status = await _look(fleet)
    engines = {engine: member.health.state for engine, member in fleet.members.items()}
    return _json({"status": status, "engines": engines})


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics, on the metrics listener alone."""
    return web.Response(
        body=request.app[SIDECAR].metrics.render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def _not_ready(sidecar: Sidecar) -> str | None:
    if sidecar.stopping:
        return "stopping"
    if sidecar.fleet.document is None:
        return "no connection document was read yet"
    unreached = sidecar.fleet.unreached()
    return f"not reached yet: {', '.join(unreached)}" if unreached else None


async def _look(fleet: Fleet) -> Overall:
    await fleet.check(list(fleet.members.values()), FRESH_SECONDS)
    return health.overall([member.health.state for member in fleet.members.values()])


def _database(engine: Engine, member: Member | None) -> dict[str, Any]:
    capabilities = sorted(CAPABILITIES[engine])
    if member is None:
        return {"configured": False, "status": "not_configured", "capabilities": capabilities}
    return _present(
        {
            "configured": True,
            "status": member.health.state,
            "version": member.health.version,
            "capabilities": capabilities,
            "pool": member.pool(),
            "latency": member.health.latency_ms(),
        }
    )


def _state(member: Member) -> dict[str, Any]:
    last_ok = member.health.last_ok
    return _present(
        {
            "state": member.health.state,
            "breaker": member.guard.breaker.state,
            "lastOk": None if last_ok is None else datetime.fromtimestamp(last_ok, UTC),
            "error": member.health.error,
        }
    )


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _json(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=wire.encode(content), content_type="application/json")


CALLS = (
    Call(method="GET", path="/api/v2/databases", handler=databases, answers={200: dict[str, Any]}),
    Call(
        method="GET",
        path="/api/v2/health/all",
        handler=health_all,
        answers={200: dict[str, Any], 503: dict[str, Any]},
    ),
    Call(
        method="GET", path="/api/v1/health", handler=health_summary, answers={200: dict[str, Any]}
    ),
    Call(method="GET", path="/health", handler=health_summary, answers={200: dict[str, Any]}),
    Call(method="GET", path="/livez", handler=livez, answers={200: dict[str, Any]}),
    Call(
        method="GET",
        path="/readyz",
        handler=readyz,
        answers={200: dict[str, Any], 503: dict[str, Any]},
    ),
)
