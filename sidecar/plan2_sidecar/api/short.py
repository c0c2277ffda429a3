"""The calls that services make on every request, as the short way in front of aiohttp takes them.

Each decodes what a plain request holds and asks the same services, with the same answers, as its
handler in its own module. What it cannot decode it leaves to that handler, whose words for it
are the ones callers know.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from plan2_sidecar.api import body, problems, query, rate_limit, wire
from plan2_sidecar.api.door import Door
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import Internal, Problem
from plan2_sidecar.limits.model import RateLimitCheck
from plan2_sidecar.server.heads import Headers
from plan2_sidecar.server.hot import Answer, HotCall, HotCalls, Request
from plan2_sidecar.server.protocol import Hot
from plan2_sidecar.state import Sidecar

LOG = logging.getLogger(__name__)
T = TypeVar("T")


def hot(sidecar: Sidecar, door: Door) -> Hot:
    """The short way of this sidecar."""

    def admits(headers: Headers, *, on_socket: bool) -> bool:
        return (
            headers.host is not None
            and headers.length <= sidecar.settings.max_body_bytes
            and door.lets_in(headers.host, headers.authorization, on_socket=on_socket)
        )

    calls = (
        HotCall("POST", "/api/v2/rate-limit/check", "/api/v2/rate-limit/check", _check(sidecar)),
        HotCall("POST", "/api/v2/query", "/api/v2/query", _query(sidecar)),
    )
    return Hot(
        HotCalls(calls), admits, sidecar.metrics.request, sidecar.clock, wire.LONGEST_TIMEOUT_MS
    )


def _check(sidecar: Sidecar) -> Callable[[Request], Answer]:
    limiter = sidecar.limiter

    async def later(request: Request, wanted: RateLimitCheck) -> Reply:
        decided = await limiter.check(wanted, _deadline(sidecar, request))
        return rate_limit.reply(sidecar, decided, wanted)

    def answer(request: Request) -> Answer:
        wanted = _decoded(request, rate_limit.CHECK)
        if wanted is None:
            return None
        decided = limiter.try_local(wanted)
        if decided is not None:
            return rate_limit.reply(sidecar, decided, wanted)
        return _told(later(request, wanted))

    return answer


def _query(sidecar: Sidecar) -> Callable[[Request], Answer]:
    async def later(request: Request, asked: wire.QueryRequest) -> Reply:
        deadline_ms = request.headers.deadline_ms
        return Reply(200, await query.answer(sidecar, asked, deadline_ms, request.started))

    def answer(request: Request) -> Answer:
        asked = _decoded(request, wire.QUERY_REQUEST)
        if asked is None or asked.target_database is None:
            return None
        return _told(later(request, asked))

    return answer


def _decoded(request: Request, decoder: wire.Decoder[T]) -> T | None:
    """The body, where it is JSON and what the call takes."""
    if not request.headers.json:
        return None
    try:
        return decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _deadline(sidecar: Sidecar, request: Request) -> Deadline:
    return body.deadline(request.started, request.headers.deadline_ms, None, sidecar.clock)


async def _told(answer: Awaitable[Reply]) -> Reply:
    """The answer, or the problem it ended with, as the edge of the long way tells it."""
    try:
        return await answer
    except Problem as problem:
        return problems.reply(problem)
    except Exception:
        LOG.exception("a call on the short way failed")
        return problems.reply(Internal("the sidecar's log says more"))
