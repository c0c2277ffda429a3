"""/api/v2/analytics/requests: what services tell of their requests, and a summary of it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from plan2_sidecar import errors
from plan2_sidecar.analytics import CAPACITY_ROWS, Group, Window
from plan2_sidecar.api import resource
from plan2_sidecar.api.problems import REACHING_AN_ENGINE
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import Page, cursor, position
from plan2_sidecar.errors import InvalidRequest, MalformedJson
from plan2_sidecar.state import SIDECAR

PATH: Final = "/api/v2/analytics/requests"
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ZONE: Final = re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)$")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One request that a service answered; members that are not listed are kept as `extra`."""

    method: Annotated[str, Meta(min_length=1, max_length=32)]
    path: Annotated[str, Meta(max_length=8192)]
    status: Annotated[int, Meta(ge=100, le=999)]
    duration_ms: Annotated[float, Meta(ge=0)] | None = None
    client_id: Annotated[str, Meta(max_length=512)] | None = None


class Accepted(msgspec.Struct, frozen=True):
    """How many were taken."""

    accepted: int


class Summarized(Page, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`since` is a span as `15m` (s, m, h, d) or a moment in RFC 3339."""

    since: str = "15m"
    group_by: Group = Group.PATH


class RequestGroup(msgspec.Struct, frozen=True, rename="camel"):
    """One group, under the name it was asked by; `errors` are statuses from 400 on."""

    count: int
    errors: int
    p50_ms: float | None = msgspec.field(name="p50Ms")
    p99_ms: float | None = msgspec.field(name="p99Ms")
    path: str | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    status: int | msgspec.UnsetType = msgspec.UNSET
    client_id: str | msgspec.UnsetType | None = msgspec.UNSET


class RequestSummary(msgspec.Struct, frozen=True):
    """The groups, those with most requests first."""

    items: list[RequestGroup]
    next: Annotated[str | None, Meta(description="the cursor of the next page")]


Told = ApiRequest | Annotated[list[ApiRequest], Meta(max_length=CAPACITY_ROWS)]
_Place = tuple[datetime, datetime, Annotated[int, Meta(ge=0, le=2**31)]]
_Members = dict[str, msgspec.Raw]
_TOLD: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(Told)
_MEMBERS: Final = msgspec.json.Decoder(_Members | list[_Members])
_KNOWN: Final = frozenset({"method", "path", "status", "durationMs", "clientId"})


class _Decoder:
    """A body as the rows of the table, without the moment."""

    def decode(self, body: bytes, /) -> list[dict[str, Any]]:
        told, members = _TOLD.decode(body), _MEMBERS.decode(body)
        if isinstance(members, dict):
            return [_row(told, members)]
        return [_row(one, every) for one, every in zip(told, members, strict=True)]


_ROWS: Final = _Decoder()


async def post(request: web.Request) -> web.Response:
    """Tell of one request or of many; they are written within a second."""
    resource.deadline(request)
    rows = await resource.decoded(request, _ROWS)
    analytics = request.app[SIDECAR].analytics
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    analytics.add([msgspec.json.encode({"at": now, **row}) for row in rows])
    return resource.json(
        Accepted(len(rows)),
        status=202,
        headers=resource.provenance(
            "buffer",
            degraded=analytics.degraded,
            fallback_from="clickhouse" if analytics.degraded else None,
        ),
    )


async def get(request: web.Request) -> web.Response:
    """Count requests, their errors and their durations by path, method, status or client."""
    deadline = resource.deadline(request)
    asked = resource.parameters(request, Summarized)
    window = _window(asked, datetime.now(UTC))
    analytics = request.app[SIDECAR].analytics
    found = await analytics.summary(window, asked.group_by, asked.limit, deadline)
    following = None
    if found.truncated:
        offset = window.offset + asked.limit
        following = cursor(window.since, window.until, offset)
    return resource.json(
        {"items": found.data, "next": following},
        headers=resource.provenance("clickhouse", degraded=analytics.degraded),
    )


def _row(told: ApiRequest, members: _Members) -> dict[str, Any]:
    extra = {name: value for name, value in members.items() if name not in _KNOWN}
    try:
        text = msgspec.json.encode(extra).decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(str(error)) from None
    return {
        "method": told.method,
        "path": told.path,
        "status": told.status,
        "duration_ms": told.duration_ms,
        "client_id": told.client_id,
        "extra": text,
    }


def _window(asked: Summarized, now: datetime) -> Window:
    """What is asked for; pages after the first look at the first one's span."""
    if asked.cursor is not None:
        return Window(*position(asked.cursor, _Place))
    # Rows of this very moment are in it.
    return Window(_since(asked.since, now), now + timedelta(seconds=1))


def _since(text: str, now: datetime) -> datetime:
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            since = now - min(timedelta(**{_UNITS[span[2]]: int(span[1])}), now - _EARLIEST)
        elif _ZONE.search(text):
            since = datetime.fromisoformat(text.upper()).astimezone(UTC)
        else:
            raise ValueError(text)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"since is {text!r}, neither a span as 15m nor a moment in RFC 3339"
        ) from None
    return min(max(since, _EARLIEST), now)


CALLS = (
    Call(
        method="POST",
        path=PATH,
        handler=post,
        body=Told,
        answers={202: Accepted},
        problems=(errors.EngineNotConfigured,),
    ),
    Call(
        method="GET",
        path=PATH,
        handler=get,
        parameters=Summarized,
        answers={200: RequestSummary},
        problems=REACHING_AN_ENGINE,
    ),
)
