"""/api/v2/sessions/{id}: what a service keeps of a user between two requests."""

from typing import Final

import msgspec
from aiohttp import web

from plan2_sidecar.api import problems, resource, wire
from plan2_sidecar.api.problems import KEEPING_THE_TRUTH
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.api.resource import Call, provenance_of
from plan2_sidecar.api.segments import Ttl, json_bytes, segment
from plan2_sidecar.errors import NotFound
from plan2_sidecar.sessions import Absent, Session, Written
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


PUT: Final = msgspec.json.Decoder(SessionPut)


async def put(request: web.Request) -> web.Response:
    """Keep a session, in place of what was there under this id."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    asked = await resource.decoded(request, PUT)
    data = json_bytes(asked.data)
    sessions = request.app[SIDECAR].sessions
    kept = await sessions.put(identity, data, asked.ttl, deadline, durable=asked.durable)
    return written(kept).response()


async def get(request: web.Request) -> web.Response:
    """Read a session; that does not extend it."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    found = await request.app[SIDECAR].sessions.get(identity, deadline)
    return reply(identity, found).response()


async def delete(request: web.Request) -> web.Response:
    """End a session, whether or not there is one."""
    deadline = resource.deadline(request)
    identity = segment(request, "id")
    return written(await request.app[SIDECAR].sessions.delete(identity, deadline)).response()


def reply(identity: str, found: Session | Absent) -> Reply:
    """What a read answers."""
    headers = _provenance(found.source, found.degraded)
    if isinstance(found, Absent):
        return problems.reply(NotFound("there is no session of this id"), *headers)
    value = SessionValue(identity, msgspec.Raw(found.data), found.ttl_seconds)
    return Reply(200, wire.encode(value), headers)


def written(told: Written) -> Reply:
    """What a write or a delete answers."""
    return Reply(204, None, _provenance(told.source, told.degraded))


def _provenance(source: str, degraded: bool) -> tuple[tuple[str, str], ...]:
    return provenance_of(source, degraded, "dragonflydb" if degraded else None)


CALLS = (
    Call(
        method="PUT",
        path=PATH,
        handler=put,
        body=SessionPut,
        answers={204: None},
        problems=KEEPING_THE_TRUTH,
    ),
    Call(
        method="GET",
        path=PATH,
        handler=get,
        answers={200: SessionValue},
        problems=(NotFound, *KEEPING_THE_TRUTH),
    ),
    Call(
        method="DELETE", path=PATH, handler=delete, answers={204: None}, problems=KEEPING_THE_TRUTH
    ),
)
