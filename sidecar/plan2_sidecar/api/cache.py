"""/api/v2/cache/{key}: any JSON under a key, for a time or for good."""

import base64
import re
from typing import Final

import msgspec
from aiohttp import web

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api import problems, resource
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import Ttl, json_text, segment
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.tiers import Tiers
from plan2_sidecar.errors import EngineNotConfigured, InvalidRequest, NotFound
from plan2_sidecar.state import SIDECAR

PATH: Final = "/api/v2/cache/{key}"
NAMESPACE_HEADER: Final = "Plan2-Namespace"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STORE: Final = Engine.DRAGONFLYDB.value


class CachePut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Any JSON for `ttl` seconds; without one it stays until it is deleted."""

    value: msgspec.Raw
    ttl: Ttl | None = None


class CacheValue(msgspec.Struct, frozen=True):
    """A value; `ttl` is the seconds left, rounded up, and null where it has no end."""

    value: msgspec.Raw
    ttl: int | None


_PUT: Final = msgspec.json.Decoder(CachePut)


async def put(request: web.Request) -> web.Response:
    """Keep a value, in place of what was there under this key."""
    deadline = resource.deadline(request)
    key = _key(request)
    asked = await resource.decoded(request, _PUT)
    value = json_text(asked.value).encode()
    tiers = _tiers(request)
    written = await tiers.put(key, value, asked.ttl, deadline)
    return _written(written.source, written.degraded)


async def get(request: web.Request) -> web.Response:
    """Read a value; that does not extend it."""
    deadline = resource.deadline(request)
    key = _key(request)
    tiers = request.app[SIDECAR].tiers
    found, degraded = await tiers.find(key, deadline, legacy=key.name)
    if found is None:
        if not tiers.configured:
            raise _no_store()
        answer = problems.response(NotFound("nothing is kept under this key"))
        answer.headers.update(_provenance(_STORE, degraded))
        return answer
    headers = _provenance(found.source, found.degraded)
    return resource.json(CacheValue(_json(found.value), found.ttl_seconds), headers=headers)


async def delete(request: web.Request) -> web.Response:
    """Forget a value, whether or not there is one."""
    deadline = resource.deadline(request)
    key = _key(request)
    written = await _tiers(request).delete(key, deadline)
    return _written(written.source, written.degraded)


def _key(request: web.Request) -> Key:
    name = segment(request, "key")
    namespace = request.headers.get(NAMESPACE_HEADER)
    if namespace is None:
        return Key(Kind.CACHE, name)
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidRequest(
            f"{NAMESPACE_HEADER} is not 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return Key(Kind.CACHE, f"{namespace}:{name}")


def _tiers(request: web.Request) -> Tiers:
    tiers = request.app[SIDECAR].tiers
    if not tiers.configured:
        raise _no_store()
    return tiers


def _no_store() -> EngineNotConfigured:
    return EngineNotConfigured("this sidecar has no store to cache in", database=Engine.DRAGONFLYDB)


def _written(source: str, degraded: bool) -> web.Response:
    return web.Response(status=204, headers=_provenance(source, degraded))


def _provenance(source: str, degraded: bool) -> dict[str, str]:
    return resource.provenance(
        source, degraded=degraded, fallback_from=_STORE if degraded else None
    )


def _json(value: bytes) -> msgspec.Raw:
    """The value as it is; what others wrote and is no JSON, as a string."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return msgspec.Raw(msgspec.json.encode({"$base64": base64.b64encode(value).decode()}))
    try:
        return msgspec.json.decode(value, type=msgspec.Raw)
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(text))


_PROBLEMS: Final = (
    errors.EngineNotConfigured,
    errors.EngineUnavailable,
    errors.EngineAuthFailed,
    errors.BreakerOpen,
    errors.BulkheadFull,
    errors.QueryRejected,
    errors.PermissionDenied,
    errors.DeadlineExceeded,
)
_HEADERS: Final = (NAMESPACE_HEADER,)

CALLS = (
    Call(
        method="PUT",
        path=PATH,
        handler=put,
        body=CachePut,
        headers=_HEADERS,
        answers={204: None},
        problems=(errors.StoreFull, *_PROBLEMS),
    ),
    Call(
        method="GET",
        path=PATH,
        handler=get,
        headers=_HEADERS,
        answers={200: CacheValue},
        problems=(NotFound, *_PROBLEMS),
    ),
    Call(
        method="DELETE",
        path=PATH,
        handler=delete,
        headers=_HEADERS,
        answers={204: None},
        problems=_PROBLEMS,
    ),
)
