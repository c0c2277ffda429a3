"""/api/v2/cache/{key}: any JSON under a key, for a time or for good."""

import base64
import re
from typing import Final

import msgspec
from aiohttp import web

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api import problems, resource, wire
from plan2_sidecar.api.problems import REACHING_AN_ENGINE
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.api.resource import Call, provenance_of
from plan2_sidecar.api.segments import Ttl, json_bytes, segment
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.levels import L1_LEVEL
from plan2_sidecar.cache.tiers import Found, Tiers, Written
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


PUT: Final = msgspec.json.Decoder(CachePut)
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)


async def put(request: web.Request) -> web.Response:
    """Keep a value, in place of what was there under this key."""
    deadline = resource.deadline(request)
    key = _key(request)
    asked = await resource.decoded(request, PUT)
    value = json_bytes(asked.value)
    tiers = _tiers(request)
    return written(await tiers.put(key, value, asked.ttl, deadline)).response()


async def get(request: web.Request) -> web.Response:
    """Read a value; that does not extend it."""
    deadline = resource.deadline(request)
    key = _key(request)
    tiers = request.app[SIDECAR].tiers
    found, degraded = await tiers.find(key, deadline, legacy=key.name)
    if found is None and not tiers.configured:
        raise _no_store()
    return reply(found, degraded).response()


async def delete(request: web.Request) -> web.Response:
    """Forget a value, whether or not there is one."""
    deadline = resource.deadline(request)
    key = _key(request)
    return written(await _tiers(request).delete(key, deadline)).response()


def reply(found: Found | None, degraded: bool) -> Reply:
    """What a read answers; `degraded` when it found nothing and could not look everywhere."""
    if found is None:
        # Without the store it is this sidecar's own memory that has nothing.
        headers = _provenance(L1_LEVEL if degraded else _STORE, degraded)
        return problems.reply(NotFound("nothing is kept under this key"), *headers)
    value = CacheValue(_json(found.value), found.ttl_seconds)
    return Reply(200, wire.encode(value), _provenance(found.source, found.degraded))


def written(told: Written) -> Reply:
    """What a write or a delete answers."""
    return Reply(204, None, _provenance(told.source, told.degraded))


def named(name: str, namespace: str | None) -> Key | None:
    """The key that a call is about; None where the namespace is none."""
    if namespace is None:
        return Key(Kind.CACHE, name)
    if not _NAMESPACE.fullmatch(namespace):
        return None
    return Key(Kind.CACHE, f"{namespace}:{name}")


def _key(request: web.Request) -> Key:
    key = named(segment(request, "key"), request.headers.get(NAMESPACE_HEADER))
    if key is None:
        raise InvalidRequest(
            f"{NAMESPACE_HEADER} is not 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return key


def _tiers(request: web.Request) -> Tiers:
    tiers = request.app[SIDECAR].tiers
    if not tiers.configured:
        raise _no_store()
    return tiers


def _no_store() -> EngineNotConfigured:
    return EngineNotConfigured("this sidecar has no store to cache in", database=Engine.DRAGONFLYDB)


def _provenance(source: str, degraded: bool) -> tuple[tuple[str, str], ...]:
    return provenance_of(source, degraded, _STORE if degraded else None)


def _json(value: bytes) -> msgspec.Raw:
    """The value as it is; what others wrote and is no JSON, as a string."""
    try:
        if not value.isascii():
            value.decode()
        return _RAW.decode(value)
    except UnicodeDecodeError:
        return msgspec.Raw(msgspec.json.encode({"$base64": base64.b64encode(value).decode()}))
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(value.decode()))


_HEADERS: Final = (NAMESPACE_HEADER,)

CALLS = (
    Call(
        method="PUT",
        path=PATH,
        handler=put,
        body=CachePut,
        headers=_HEADERS,
        answers={204: None},
        problems=(errors.StoreFull, *REACHING_AN_ENGINE),
    ),
    Call(
        method="GET",
        path=PATH,
        handler=get,
        headers=_HEADERS,
        answers={200: CacheValue},
        problems=(NotFound, *REACHING_AN_ENGINE),
    ),
    Call(
        method="DELETE",
        path=PATH,
        handler=delete,
        headers=_HEADERS,
        answers={204: None},
        problems=REACHING_AN_ENGINE,
    ),
)
