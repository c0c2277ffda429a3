"""What a module of the API declares about each call: enough to serve it and to describe it.

`app` routes the calls; `openapi` writes `/openapi.json` from the same types that decode.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from plan2_sidecar.api import body, wire
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import InvalidRequest, Problem
from plan2_sidecar.query import Form
from plan2_sidecar.state import SIDECAR

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One method of one path. The first line of the handler's docstring is its summary.

    `body` is the type that decodes the JSON body, None for calls without one; `parameters` a
    Struct of the query string's members; `headers` the request headers it reads besides
    Authorization and X-Deadline-Ms. `answers` maps a status to the type of its body, None for
    none; `problems` are those this call has besides the ones every call may answer; `forms` are
    what the answer of 200 can be besides JSON.
    """

    method: str
    path: str
    handler: Handler
    body: Any = None
    parameters: type[msgspec.Struct] | None = None
    headers: tuple[str, ...] = ()
    answers: Mapping[int, Any] = field(default_factory=dict)
    problems: tuple[type[Problem], ...] = ()
    forms: tuple[Form, ...] = ()


def parameters(request: web.Request, kind: type[T]) -> T:
    """The query string as `kind`, numbers read from their text; raises InvalidRequest."""
    repeated = [name for name in request.query if len(request.query.getall(name)) > 1]
    if repeated:
        raise InvalidRequest(f"{repeated[0]} is given more than once in the query string")
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the query string: {error}") from None


async def decoded(request: web.Request, decoder: wire.Decoder[Any]) -> Any:
    """The JSON body; raises whatever is wrong with it as a Problem."""
    content = await body.read(request, request.app[SIDECAR].settings.max_body_bytes)
    return wire.decode(decoder, content)


def deadline(request: web.Request) -> Deadline:
    """The call's deadline, counted from now; to be asked for first."""
    clock = request.app[SIDECAR].clock
    return body.deadline(clock(), body.asked_ms(request), None, clock)


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer as JSON."""
    return web.Response(
        status=status,
        body=wire.encode(content),
        content_type="application/json",
        headers=headers,
    )


def provenance(
    source: str, *, degraded: bool = False, fallback_from: str | None = None
) -> dict[str, str]:
    """The headers that say where an answer came from, and whether it is less than asked for."""
    return dict(provenance_of(source, degraded, fallback_from))


@lru_cache(maxsize=64)
def provenance_of(
    source: str, degraded: bool = False, fallback_from: str | None = None
) -> tuple[tuple[str, str], ...]:
    """`provenance` as a Reply has it, made once for each of the few there are."""
    headers = [("Plan2-Source", source)]
    if degraded:
        headers.append(("Plan2-Degraded", "true"))
    if fallback_from is not None:
        headers.append(("Plan2-Fallback-From", fallback_from))
    return tuple(headers)
