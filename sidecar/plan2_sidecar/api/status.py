"""How the sidecar and the engines are: probes, health, and the list of databases."""

from datetime import UTC, datetime
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from plan2_contract.engines import CAPABILITIES, Capability, Engine
from plan2_sidecar import health
from plan2_sidecar.api.resource import Call, json
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.guard import breaker
from plan2_sidecar.health import Overall
from plan2_sidecar.state import SIDECAR, Sidecar

# A state learnt this recently is not asked for again.
FRESH_SECONDS = 5.0


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /livez."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /readyz."""

    status: Literal["ready", "not ready"]
    reason: str | UnsetType = UNSET


class Pool(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Connections of an engine now, and how many there may be."""

    size: int
    idle: int
    in_use: int
    max: int


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds that the last calls took."""

    p50: float = msgspec.field(name="p50Ms")
    p99: float = msgspec.field(name="p99Ms")


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, as far as this sidecar has it."""

    configured: bool
    status: Literal["up", "down", "unknown", "not_configured"]
    version: str | UnsetType = UNSET
    capabilities: list[Capability]
    pool: Pool | UnsetType = UNSET
    latency: Latency | UnsetType = UNSET


class Databases(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /api/v2/databases: every engine Plan2 knows."""

    engines: dict[Engine, Database]


class EngineHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One configured engine."""

    state: health.State
    breaker: breaker.State
    last_ok: datetime | UnsetType = UNSET
    error: str | UnsetType = UNSET


class HealthAll(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /api/v2/health/all."""

    status: Overall
    engines: dict[Engine, EngineHealth]


class HealthSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /health and /api/v1/health."""

    status: Overall
    engines: dict[Engine, health.State]


class Strictness(msgspec.Struct, frozen=True, kw_only=True):
    """The query string of GET /api/v2/health/all; `1` or `true` make it strict."""

    strict: str = "0"


async def livez(request: web.Request) -> web.Response:
    """GET /livez: the process serves; no database has a say."""
    return json(Alive())


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: a connection document was read, required engines were reached once."""
    reason = _not_ready(request.app[SIDECAR])
    if reason is None:
        return json(Readiness(status="ready"))
    return json(Readiness(status="not ready", reason=reason), status=503)


async def databases(request: web.Request) -> web.Response:
    """GET /api/v2/databases: every engine Plan2 knows, and what this sidecar has of it."""
    fleet = request.app[SIDECAR].fleet
    await fleet.check(list(fleet.members.values()), FRESH_SECONDS)
    engines = {engine: _database(engine, fleet.members.get(engine)) for engine in Engine}
    return json(Databases(engines=engines))


async def health_all(request: web.Request) -> web.Response:
    """GET /api/v2/health/all: the engines; those not called lately are pinged, all at once."""
    fleet = request.app[SIDECAR].fleet
    status = await _look(fleet)
    engines = {engine: _state(member) for engine, member in fleet.members.items()}
    strict = request.query.get("strict") in ("1", "true")
    code = 503 if strict and status is not Overall.OK else 200
    return json(HealthAll(status=status, engines=engines), status=code)


async def health_summary(request: web.Request) -> web.Response:
    """GET /health: the engines, up or down; open to all, so it says no more than that."""
    fleet = request.app[SIDECAR].fleet
    status = await _look(fleet)
    engines = {engine: member.health.state for engine, member in fleet.members.items()}
    return json(HealthSummary(status=status, engines=engines))


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics, on the metrics listener alone."""
    counted = request.app[SIDECAR].metrics
    await counted.prepare()
    return web.Response(
        body=counted.render(),
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


def _database(engine: Engine, member: Member | None) -> Database:
    capabilities = sorted(CAPABILITIES[engine])
    if member is None:
        return Database(configured=False, status="not_configured", capabilities=capabilities)
    pool, latency = member.pool(), member.health.latency_ms()
    return Database(
        configured=True,
        status=member.health.state.value,
        version=member.health.version or UNSET,
        capabilities=capabilities,
        pool=msgspec.convert(pool, Pool),
        latency=UNSET if latency is None else msgspec.convert(latency, Latency),
    )


def _state(member: Member) -> EngineHealth:
    last_ok = member.health.last_ok
    return EngineHealth(
        state=member.health.state,
        breaker=member.guard.breaker.state,
        last_ok=UNSET if last_ok is None else datetime.fromtimestamp(last_ok, UTC),
        error=member.health.error or UNSET,
    )


CALLS = (
    Call(method="GET", path="/api/v2/databases", handler=databases, answers={200: Databases}),
    Call(
        method="GET",
        path="/api/v2/health/all",
        handler=health_all,
        parameters=Strictness,
        answers={200: HealthAll, 503: HealthAll},
    ),
    Call(method="GET", path="/api/v1/health", handler=health_summary, answers={200: HealthSummary}),
    Call(method="GET", path="/health", handler=health_summary, answers={200: HealthSummary}),
    Call(method="GET", path="/livez", handler=livez, answers={200: Alive}),
    Call(
        method="GET",
        path="/readyz",
        handler=readyz,
        answers={200: Readiness, 503: Readiness},
    ),
)
