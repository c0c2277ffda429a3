"""/api/v2/registry: which instances serve, and which routes lead where."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from plan2_sidecar.api import problems, resource
from plan2_sidecar.api.problems import KEEPING_THE_TRUTH
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import Page, Ttl, cursor, json_text, position, segment
from plan2_sidecar.errors import NotFound
from plan2_sidecar.registry import Member, Registry, Told, Written
from plan2_sidecar.state import SIDECAR

SERVICES: Final = "/api/v2/registry/services"
SERVICE: Final = f"{SERVICES}/{{name}}"
INSTANCE: Final = f"{SERVICE}/{{instance}}"
ROUTE: Final = "/api/v2/registry/routes/{route}"
DEFAULT_TTL_SECONDS: Final = 30


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class InstancePut(_Request, frozen=True, kw_only=True):
    """A heartbeat: the instance is there for `ttl` seconds more."""

    url: Annotated[str, Meta(min_length=1, max_length=8192)]
    metadata: dict[str, msgspec.Raw] = {}
    ttl: Ttl = DEFAULT_TTL_SECONDS


class RoutePut(_Request, frozen=True, kw_only=True):
    """Where a route leads, any JSON, for `ttl` seconds."""

    target: msgspec.Raw
    ttl: Ttl = DEFAULT_TTL_SECONDS


class Instance(msgspec.Struct, frozen=True):
    """One instance; `ttl` is the seconds it has left to be heard of, rounded up."""

    instance: str
    url: str
    metadata: dict[str, Any]
    ttl: int


class Service(msgspec.Struct, frozen=True):
    """The instances that are alive, by name."""

    name: str
    instances: list[Instance]


class Services(msgspec.Struct, frozen=True):
    """Services that have instances, by name."""

    items: list[Service]
    next: Annotated[str | None, Meta(description="the cursor of the next page")]


class RouteTarget(msgspec.Struct, frozen=True):
    """Where a route leads; `ttl` is the seconds left, rounded up."""

    target: msgspec.Raw
    ttl: int


class _Body(msgspec.Struct, frozen=True):
    url: str
    metadata: msgspec.Raw


_INSTANCE_PUT: Final = msgspec.json.Decoder(InstancePut)
_ROUTE_PUT: Final = msgspec.json.Decoder(RoutePut)
_BODY: Final = msgspec.json.Decoder(_Body)


async def put_instance(request: web.Request) -> web.Response:
    """Register an instance, and again as its heartbeat."""
    deadline = resource.deadline(request)
    service, instance = segment(request, "name"), segment(request, "instance")
    asked = await resource.decoded(request, _INSTANCE_PUT)
    body = _Body(asked.url, msgspec.Raw(msgspec.json.encode(asked.metadata)))
    text = json_text(msgspec.Raw(msgspec.json.encode(body))).encode()
    return _written(await _registry(request).register(service, instance, text, asked.ttl, deadline))


async def delete_instance(request: web.Request) -> web.Response:
    """Take an instance out, whether or not it is there."""
    deadline = resource.deadline(request)
    service, instance = segment(request, "name"), segment(request, "instance")
    return _written(await _registry(request).deregister(service, instance, deadline))


async def get_service(request: web.Request) -> web.Response:
    """List the instances of a service that are alive."""
    deadline = resource.deadline(request)
    name = segment(request, "name")
    told = await _registry(request).instances(name, deadline)
    if not told.members:
        return _nothing("no instance of this service is alive", told)
    return resource.json(_service(name, told.members), headers=_headers([told]))


async def get_services(request: web.Request) -> web.Response:
    """List the services and their instances."""
    deadline = resource.deadline(request)
    page = resource.parameters(request, Page)
    after = None if page.cursor is None else position(page.cursor, tuple[str])[0]
    found, last = await _registry(request).services(after, page.limit, deadline)
    items = [_service(name, told.members) for name, told in found]
    following = None if last is None else cursor(last)
    headers = _headers([told for _, told in found])
    return resource.json({"items": items, "next": following}, headers=headers)


async def put_route(request: web.Request) -> web.Response:
    """Say where a route leads."""
    deadline = resource.deadline(request)
    route = segment(request, "route")
    asked = await resource.decoded(request, _ROUTE_PUT)
    target = json_text(asked.target).encode()
    return _written(await _registry(request).put_route(route, target, asked.ttl, deadline))


async def get_route(request: web.Request) -> web.Response:
    """Read where a route leads."""
    deadline = resource.deadline(request)
    told = await _registry(request).route(segment(request, "route"), deadline)
    if not told.members:
        return _nothing("no such route is known", told)
    route = told.members[0]
    target = RouteTarget(msgspec.Raw(route.body or b"null"), _seconds(route))
    return resource.json(target, headers=_headers([told]))


async def delete_route(request: web.Request) -> web.Response:
    """Forget a route, whether or not there is one."""
    deadline = resource.deadline(request)
    return _written(await _registry(request).delete_route(segment(request, "route"), deadline))


def _service(name: str, members: Sequence[Member]) -> dict[str, Any]:
    return {"name": name, "instances": [_instance(member) for member in members]}


def _instance(member: Member) -> dict[str, Any]:
    body = _BODY.decode(member.body or b"")
    return {
        "instance": member.name,
        "url": body.url,
        "metadata": body.metadata,
        "ttl": _seconds(member),
    }


def _seconds(member: Member) -> int:
    return max(0, -(-member.left_ms // 1000))


def _headers(told: Sequence[Told]) -> dict[str, str]:
    """Of several places the one that says most about how well the answer is."""
    if not told:
        return resource.provenance("dragonflydb")
    worst = next((each for each in told if each.degraded), told[0])
    fallback = "dragonflydb" if worst.degraded else None
    return resource.provenance(worst.source, degraded=worst.degraded, fallback_from=fallback)


def _nothing(detail: str, told: Told) -> web.Response:
    answer = problems.response(NotFound(detail))
    answer.headers.update(_headers([told]))
    return answer


def _written(written: Written) -> web.Response:
    fallback = "dragonflydb" if written.degraded else None
    headers = resource.provenance(written.source, degraded=written.degraded, fallback_from=fallback)
    return web.Response(status=204, headers=headers)


def _registry(request: web.Request) -> Registry:
    return request.app[SIDECAR].registry


CALLS = (
    Call(
        method="PUT",
        path=INSTANCE,
        handler=put_instance,
        body=InstancePut,
        answers={204: None},
        problems=KEEPING_THE_TRUTH,
    ),
    Call(
        method="DELETE",
        path=INSTANCE,
        handler=delete_instance,
        answers={204: None},
        problems=KEEPING_THE_TRUTH,
    ),
    Call(
        method="GET",
        path=SERVICE,
        handler=get_service,
        answers={200: Service},
        problems=(NotFound, *KEEPING_THE_TRUTH),
    ),
    Call(
        method="GET",
        path=SERVICES,
        handler=get_services,
        parameters=Page,
        answers={200: Services},
        problems=KEEPING_THE_TRUTH,
    ),
    Call(
        method="PUT",
        path=ROUTE,
        handler=put_route,
        body=RoutePut,
        answers={204: None},
        problems=KEEPING_THE_TRUTH,
    ),
    Call(
        method="GET",
        path=ROUTE,
        handler=get_route,
        answers={200: RouteTarget},
        problems=(NotFound, *KEEPING_THE_TRUTH),
    ),
    Call(
        method="DELETE",
        path=ROUTE,
        handler=delete_route,
        answers={204: None},
        problems=KEEPING_THE_TRUTH,
    ),
)
