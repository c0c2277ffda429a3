"""Reading a JSON body: its content type, its length, and the call's deadline."""

from collections.abc import Sequence

from aiohttp import hdrs, web

from plan2_sidecar.api import accept
from plan2_sidecar.api.wire import DEFAULT_TIMEOUT_MS, LONGEST_TIMEOUT_MS
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import (
    BodyTooLarge,
    InvalidRequest,
    UnsupportedMediaType,
)
from plan2_sidecar.query import Form

DEADLINE_HEADER = "X-Deadline-Ms"


async def read(request: web.Request, limit: int, offered: Sequence[Form] = (Form.JSON,)) -> bytes:
    """The body; raises UnsupportedMediaType, NotAcceptable, BodyTooLarge or InvalidRequest.

    `offered` are the forms the answer may take.
    """
    content_type = request.content_type
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"the content type is {request.headers.get(hdrs.CONTENT_TYPE, 'missing')}; "
            "send application/json"
        )
    accept.forms(request, offered)
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(f"the body is {request.content_length} bytes, {limit} are read")
    try:
        return await request.read()
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None


def asked_ms(request: web.Request) -> int | None:
    """The caller's X-Deadline-Ms; raises InvalidRequest."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    # isdecimal() admits digits of other scripts; int() reads those too.
    milliseconds = int(text) if len(text) <= 6 and text.isdecimal() else 0
    if not 1 <= milliseconds <= LONGEST_TIMEOUT_MS:
        raise InvalidRequest(f"{DEADLINE_HEADER} is {text!r}, not 1 to {LONGEST_TIMEOUT_MS}")
    return milliseconds


def deadline(started: float, header_ms: int | None, body_ms: int | None, clock: Clock) -> Deadline:
    """The smaller of the two, counted from the request's arrival at `started`."""
    if header_ms is None:
        given = DEFAULT_TIMEOUT_MS if body_ms is None else body_ms
    else:
        given = header_ms if body_ms is None else min(header_ms, body_ms)
    return Deadline(started + given / 1000, clock)
