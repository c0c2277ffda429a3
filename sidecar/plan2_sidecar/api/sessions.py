"""/api/v2/sessions/{id}: what a service keeps of a user between two requests."""

from typing import Final

import msgspec
from aiohttp import web

from plan2_sidecar import errors
from plan2_sidecar.api import problems, resource
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import Ttl, json_text, segment
from plan2_sidecar.errors import NotFound
from plan2_sidecar.sessions import Absent
from plan2_sidecar.state import SIDECAR

PATH: Final = "/api/v2/sessions/{id}"
DEFAULT_TTL_SECONDS: Final = 3600


class SessionPut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Any JSON for `ttl` seconds. One that is not `durable` is lost with the store."""

    data: msgspec.Raw
    ttl: Ttl = DEFAULT_TTL_SECONDS
    durable: bool = True


class SessionValue(msgspec.Struct, frozen=True):
    """A session; `ttl` is the seconds left, rounded up."""

    id: str
    data: msgspec.Raw
    ttl: int


_PUT: Final = msgspec.json.Decoder(SessionPut)


async def put(request: web.Request) -> web.Response:
    """Keep a session, in place of what was there under this id."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    asked = await resource.decoded(request, _PUT)
    data = json_text(asked.data).encode()
    sessions = request.app[SIDECAR].sessions
    kept = await sessions.put(identity, data, asked.ttl, deadline, durable=asked.durable)
    return web.Response(
        status=204, headers=resource.provenance(kept.source, degraded=kept.degraded)
    )


async def get(request: web.Request) -> web.Response:
    """Read a session; that does not extend it."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    found = await request.app[SIDECAR].sessions.get(identity, deadline)
    headers = resource.provenance(
        found.source,
        degraded=found.degraded,
        fallback_from="dragonflydb" if found.degraded else None,
    )
    if isinstance(found, Absent):
        answer = problems.response(NotFound("there is no session of this id"))
        answer.headers.update(headers)
        return answer
    return resource.json(
        SessionValue(identity, msgspec.Raw(found.data), found.ttl_seconds), headers=headers
    )


async def delete(request: web.Request) -> web.Response:
    """End a session, whether or not there is one."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    told = await request.app[SIDECAR].sessions.delete(identity, deadline)
    return web.Response(
        status=204, headers=resource.provenance(told.source, degraded=told.degraded)
    )


_PROBLEMS: Final = (
    errors.EngineNotConfigured,
    errors.EngineUnavailable,
    errors.EngineAuthFailed,
    errors.BreakerOpen,
    errors.BulkheadFull,
    errors.StoreFull,
    errors.SchemaOutdated,
    errors.QueryRejected,
    errors.PermissionDenied,
    errors.Conflict,
    errors.DeadlineExceeded,
)

CALLS = (
    Call(
        method="PUT",
        path=PATH,
        handler=put,
        body=SessionPut,
        answers={204: None},
        problems=_PROBLEMS,
    ),
    Call(
        method="GET",
        path=PATH,
        handler=get,
        answers={200: SessionValue},
        problems=(NotFound, *_PROBLEMS),
    ),
    Call(method="DELETE", path=PATH, handler=delete, answers={204: None}, problems=_PROBLEMS),
)
