"""/api/v2/config: values by user and key with versions, their cache and their history."""

import re
from typing import Annotated, Any, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from plan2_sidecar import errors
from plan2_sidecar.api import problems, resource
from plan2_sidecar.api.problems import KEEPING_THE_TRUTH
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import Page, Ttl, checked, cursor, json_text, position, raw, segment
from plan2_sidecar.configuration import Configuration, Precondition
from plan2_sidecar.errors import InvalidRequest, NotFound
from plan2_sidecar.state import SIDECAR

PATH: Final = "/api/v2/config/{userId}/{key}"
ACTOR_HEADER: Final = "Plan2-Actor"
NOBODY: Final = "unknown"
_TAG: Final = re.compile(r'"([1-9][0-9]{0,18})"')
# Ids of changes are PostgreSQL's bigint.
_Place = tuple[Annotated[int, Meta(ge=0, le=2**63 - 1)]]
_VERSION_PROBLEM: Final = 'is * or versions in quotes, as "3"'


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    pass


class ConfigPut(_Request, frozen=True):
    """A value to be stored: any JSON."""

    value: msgspec.Raw


class ConfigCachePut(_Request, frozen=True):
    """A value for the cache alone, `ttl` in seconds; without one it stays."""

    value: msgspec.Raw
    ttl: Ttl | None = None


class ConfigChangePost(_Request, frozen=True, kw_only=True):
    """A change that happened elsewhere."""

    old_value: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    new_value: msgspec.Raw


class ConfigVersion(msgspec.Struct, frozen=True):
    """What a write made."""

    version: int


class ConfigValue(msgspec.Struct, frozen=True):
    """`source` is `postgresql`, or `cache` for a value that has no version."""

    value: msgspec.Raw
    version: int | None
    source: str


class ConfigChange(msgspec.Struct, frozen=True, rename="camel"):
    """One line of the history; `version` is null for a change that was only reported."""

    version: int | None
    old_value: msgspec.Raw
    new_value: msgspec.Raw
    actor: str
    at: str


class ConfigHistory(msgspec.Struct, frozen=True):
    """Newest first."""

    items: list[ConfigChange]
    next: Annotated[str | None, Meta(description="the cursor of the next page")]


_PUT: Final = msgspec.json.Decoder(ConfigPut)
_CACHE_PUT: Final = msgspec.json.Decoder(ConfigCachePut)
_CHANGE: Final = msgspec.json.Decoder(ConfigChangePost)


async def put(request: web.Request) -> web.Response:
    """Store a value; its version is the ETag."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    wanted = precondition(request)
    asked = await resource.decoded(request, _PUT)
    written = await _service(request).put(
        user, key, json_text(asked.value), deadline, wanted=wanted, actor=actor(request)
    )
    headers = _provenance("postgresql", degraded=written.degraded)
    headers["ETag"] = f'"{written.version}"'
    return resource.json(ConfigVersion(written.version), headers=headers)


async def get(request: web.Request) -> web.Response:
    """Read a value, from a cache where there is a copy."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    found = await _service(request).get(user, key, deadline)
    headers = resource.provenance(
        found.source, degraded=found.degraded, fallback_from=found.fallback_from
    )
    if found.value is None:
        answer = problems.response(NotFound("no value is stored under this key"))
        answer.headers.update(headers)
        return answer
    if found.version is not None:
        headers["ETag"] = f'"{found.version}"'
    return resource.json(
        ConfigValue(raw(found.value), found.version, found.origin), headers=headers
    )


async def delete(request: web.Request) -> web.Response:
    """Delete a value; its history stays."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    written = await _service(request).delete(
        user, key, deadline, wanted=precondition(request), actor=actor(request)
    )
    return web.Response(status=204, headers=_provenance("postgresql", degraded=written.degraded))


async def put_cache(request: web.Request) -> web.Response:
    """Put a value in the cache, in front of the stored one, which stays as it is."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    asked = await resource.decoded(request, _CACHE_PUT)
    kept = await _service(request).cache(user, key, json_text(asked.value), asked.ttl, deadline)
    return web.Response(status=204, headers=_provenance(kept.source, degraded=kept.degraded))


async def post_change(request: web.Request) -> web.Response:
    """Append a change to the history without changing the value."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    asked = await resource.decoded(request, _CHANGE)
    old, new = json_text(asked.old_value), json_text(asked.new_value)
    await _service(request).log_change(user, key, old, new, deadline, actor=actor(request))
    return web.Response(status=202, headers=resource.provenance("postgresql"))


async def get_history(request: web.Request) -> web.Response:
    """List the changes of a value, newest first."""
    deadline = resource.deadline(request)
    user, key = _names(request)
    page = resource.parameters(request, Page)
    before = None if page.cursor is None else position(page.cursor, _Place)[0]
    changes = await _service(request).history(user, key, before, page.limit + 1, deadline)
    shown = changes[: page.limit]
    items = [
        ConfigChange(
            change.version,
            raw(change.old_value or "null"),
            raw(change.new_value or "null"),
            change.actor,
            change.at,
        )
        for change in shown
    ]
    following = cursor(shown[-1].id) if len(changes) > page.limit else None
    return resource.json(ConfigHistory(items, following), headers=resource.provenance("postgresql"))


def precondition(request: web.Request) -> Precondition:
    """What If-Match and If-None-Match ask for; raises InvalidRequest."""
    match = ",".join(request.headers.getall(hdrs.IF_MATCH, ())).strip()
    none_match = ",".join(request.headers.getall(hdrs.IF_NONE_MATCH, ())).strip()
    if match and none_match:
        raise InvalidRequest("If-Match and If-None-Match ask for opposite things")
    if hdrs.IF_NONE_MATCH in request.headers:
        if none_match != "*":
            raise InvalidRequest(f"If-None-Match is {none_match!r}; a write takes * alone")
        return Precondition(exists=False)
    if hdrs.IF_MATCH not in request.headers:
        return Precondition()
    if match == "*":
        return Precondition(exists=True)
    tags = [_TAG.fullmatch(tag.strip()) for tag in match.split(",")]
    versions = [int(tag[1]) for tag in tags if tag is not None]
    if len(versions) < len(tags):
        raise InvalidRequest(f"If-Match is {match!r}; it {_VERSION_PROBLEM}")
    return Precondition(versions=frozenset(versions))


def actor(request: web.Request) -> str:
    """Who makes the change: the header's word, else the pod's service account."""
    named = request.headers.get(ACTOR_HEADER, "").strip()
    if named:
        return checked(named, ACTOR_HEADER)
    return request.app[SIDECAR].settings.service_account or NOBODY


def _names(request: web.Request) -> tuple[str, str]:
    return segment(request, "userId"), segment(request, "key")


def _provenance(source: str, *, degraded: bool) -> dict[str, str]:
    """Of a write, which the store was told of or not."""
    fallback_from = "dragonflydb" if degraded else None
    return resource.provenance(source, degraded=degraded, fallback_from=fallback_from)


def _service(request: web.Request) -> Configuration:
    return request.app[SIDECAR].configuration


_CONDITIONS: Final = (hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, ACTOR_HEADER)


def _call(method: str, path: str, handler: Any, **members: Any) -> Call:
    problems = (*KEEPING_THE_TRUTH, *members.pop("problems", ()))
    return Call(method=method, path=path, handler=handler, problems=problems, **members)


CALLS = (
    _call(
        "PUT",
        PATH,
        put,
        body=ConfigPut,
        headers=_CONDITIONS,
        answers={200: ConfigVersion},
        problems=(errors.VersionMismatch,),
    ),
    _call("GET", PATH, get, answers={200: ConfigValue}, problems=(NotFound,)),
    _call(
        "DELETE",
        PATH,
        delete,
        headers=_CONDITIONS,
        answers={204: None},
        problems=(errors.VersionMismatch,),
    ),
    _call("PUT", f"{PATH}/cache", put_cache, body=ConfigCachePut, answers={204: None}),
    _call(
        "POST",
        f"{PATH}/changes",
        post_change,
        body=ConfigChangePost,
        headers=(ACTOR_HEADER,),
        answers={202: None},
    ),
    _call("GET", f"{PATH}/history", get_history, parameters=Page, answers={200: ConfigHistory}),
)
