"""POST /api/v2/rate-limit/check and DELETE /api/v2/rate-limit/{clientId}.

The limits themselves are in `limits`; here are the headers they are told by.
"""

from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import web
from msgspec import UNSET

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api import problems, resource
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.api.resource import Call
from plan2_sidecar.api.segments import decodes
from plan2_sidecar.errors import InvalidRequest, RateLimited
from plan2_sidecar.limits.model import (
    LONGEST_CLIENT_ID,
    RateLimitCheck,
    RateLimitDecision,
    Source,
)
from plan2_sidecar.state import SIDECAR, Sidecar

_RATE_LIMIT: Final = "RateLimit"
# Whole numbers only: wire.encode's care for decimals is not needed.
_ENCODE: Final = msgspec.json.Encoder().encode
CHECK: msgspec.json.Decoder[RateLimitCheck] = msgspec.json.Decoder(RateLimitCheck)


class CheckParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`enforce` makes a denial a 429, for callers that pass the answer on as it is."""

    enforce: bool = False


async def check(request: web.Request) -> web.Response:
    """Count a call against a client's limit, and say whether it may go on."""
    deadline = resource.deadline(request)
    sidecar = request.app[SIDECAR]
    asked = resource.parameters(request, CheckParameters)
    wanted: RateLimitCheck = await resource.decoded(request, CHECK)
    decided = await sidecar.limiter.check(wanted, deadline)
    return reply(sidecar, decided, wanted, enforce=asked.enforce).response()


def reply(
    sidecar: Sidecar, decided: RateLimitDecision, wanted: RateLimitCheck, *, enforce: bool = False
) -> Reply:
    """The answer to a check, which is counted."""
    sidecar.metrics.rate_limit(decided.source, allowed=decided.allowed)
    policy = _policy(decided.source, decided.degraded, decided.limit, wanted.window_ms)
    more = _headers(decided)
    if decided.allowed or not enforce:
        return Reply(200, _ENCODE(decided), policy, more=more)
    return problems.reply(_refusal(decided, wanted), *policy, *more)


async def reset(request: web.Request) -> web.Response:
    """Start all counters of a client anew, in every sidecar within a second."""
    deadline = resource.deadline(request)
    sidecar = request.app[SIDECAR]
    client_id = request.match_info["clientId"]
    is_text = _is_text(client_id) and decodes(request, client_id)
    if len(client_id) > LONGEST_CLIENT_ID or not is_text:
        raise InvalidRequest(f"clientId is UTF-8 text of at most {LONGEST_CLIENT_ID} characters")
    await sidecar.limiter.reset(client_id, deadline)
    return web.Response(status=204, headers=resource.provenance(Engine.DRAGONFLYDB))


def _is_text(name: str) -> bool:
    """Bytes of the path that are not UTF-8 come as surrogates, which have no encoding."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


@lru_cache(maxsize=256)
def _policy(
    source: Source, degraded: bool, limit: int, window_ms: int
) -> tuple[tuple[str, str], ...]:
    """The headers that are the same for every check of one kind."""
    policy = f'"default";q={limit};w={_seconds(window_ms)}'
    fallback_from = Engine.DRAGONFLYDB.value if degraded else None
    told = resource.provenance_of(source, degraded, fallback_from)
    return *told, ("RateLimit-Policy", policy)


def _headers(decided: RateLimitDecision) -> tuple[tuple[str, str], ...]:
    retry_ms = decided.retry_after_ms
    if retry_ms is UNSET:
        return ((_RATE_LIMIT, _left(decided.remaining, decided.reset_ms)),)
    return (
        (problems.RETRY_AFTER, str(_seconds(retry_ms))),
        (_RATE_LIMIT, _left(decided.remaining, retry_ms)),
    )


def _left(remaining: int, until_ms: int) -> str:
    return f'"default";r={remaining};t={-(-until_ms // 1000)}'


def _seconds(milliseconds: int) -> int:
    """Whole ones, rounded up: a client that waits them out finds what it was promised."""
    return -(-milliseconds // 1000)


def _refusal(decided: RateLimitDecision, wanted: RateLimitCheck) -> RateLimited:
    ever = decided.retry_after_ms is not UNSET
    return RateLimited(
        f"{wanted.client_id} may do {decided.limit} in {wanted.window_ms} ms"
        if ever
        else f"a cost of {wanted.cost} is more than the limit of {decided.limit}",
        retryable=ever,
        members=msgspec.to_builtins(decided),
    )


CALLS = (
    Call(
        method="POST",
        path="/api/v2/rate-limit/check",
        handler=check,
        body=RateLimitCheck,
        parameters=CheckParameters,
        answers={200: RateLimitDecision},
        problems=(
            RateLimited,
            errors.EngineNotConfigured,
            errors.QueryRejected,
            errors.PermissionDenied,
        ),
    ),
    Call(
        method="DELETE",
        path="/api/v2/rate-limit/{clientId}",
        handler=reset,
        answers={204: None},
        problems=(
            errors.EngineNotConfigured,
            errors.QueryRejected,
            errors.PermissionDenied,
            errors.EngineUnavailable,
            errors.BreakerOpen,
            errors.BulkheadFull,
            errors.StoreFull,
            errors.EngineAuthFailed,
            errors.DeadlineExceeded,
        ),
    ),
)
