"""Errors as application/problem+json: members that do not apply are absent, never null."""

from typing import Final

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.errors import Problem

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = "Retry-After"

REACHING_AN_ENGINE: Final[tuple[type[Problem], ...]] = (
    errors.EngineNotConfigured,
    errors.EngineUnavailable,
    errors.EngineAuthFailed,
    errors.BreakerOpen,
    errors.BulkheadFull,
    errors.QueryRejected,
    errors.PermissionDenied,
    errors.DeadlineExceeded,
)
"""What a call may answer that asks an engine for something of the sidecar's own."""
KEEPING_THE_TRUTH: Final = (
    *REACHING_AN_ENGINE,
    errors.StoreFull,
    errors.SchemaOutdated,
    errors.Conflict,
)
"""What a call may answer whose truth stands in PostgreSQL, in tables of the sidecar's own."""


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every problem says; some say more, in members of their own."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    database: Engine | UnsetType = UNSET
    retryable: bool | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET
    engine_code: str | UnsetType = UNSET


def reply(problem: Problem, *more: tuple[str, str]) -> Reply:
    """The whole answer, with the headers that belong to its status, and `more`."""
    headers = list(more)
    if problem.retry_after_ms is not None and not any(name == RETRY_AFTER for name, _ in more):
        headers.append((RETRY_AFTER, str(max(1, -(-problem.retry_after_ms // 1000)))))
    if isinstance(problem, errors.Unauthorized):
        headers.append(("WWW-Authenticate", "Bearer"))
    body = msgspec.json.encode(problem.document())
    return Reply(problem.status, body, tuple(headers), CONTENT_TYPE)


def response(problem: Problem) -> web.Response:
    """The same as aiohttp's."""
    return reply(problem).response()


def from_http(error: web.HTTPException, request: web.Request) -> web.Response:
    """What aiohttp itself refused, in our form."""
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = error.headers["Allow"]
            answer = response(
                errors.MethodNotAllowed(f"{request.path} takes {allowed}, not {request.method}")
            )
            answer.headers["Allow"] = allowed
            return answer
        case web.HTTPRequestEntityTooLarge():
            return response(errors.BodyTooLarge("the body is longer than this sidecar reads"))
        case web.HTTPNotFound():
            return response(errors.NotFound(f"nothing is at {request.path}"))
        case _:
            return response(errors.Refused(error.reason))
