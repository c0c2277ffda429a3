"""Errors as application/problem+json: members that do not apply are absent, never null."""

from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.errors import Problem

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = "Retry-After"
TYPE_BASE = "https://plan2.io/problems/"


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


def document(problem: Problem) -> dict[str, Any]:
    """The problem by its wire names."""
    members = {
        "type": TYPE_BASE + problem.code,
        "title": problem.title,
        "status": problem.status,
        # A header that is not UTF-8 comes as surrogates, which JSON has no bytes for.
        "detail": problem.detail.encode("utf-8", "backslashreplace").decode(),
        "code": problem.code,
        "database": problem.database,
        "retryable": problem.retryable,
        "retryAfterMs": problem.retry_after_ms,
        "engineCode": problem.engine_code,
        **problem.members,
    }
    return {name: value for name, value in members.items() if value is not None}


def reply(problem: Problem, *more: tuple[str, str]) -> Reply:
    """The whole answer, with the headers that belong to its status, and `more`."""
    headers = list(more)
    if problem.retry_after_ms is not None and not any(name == RETRY_AFTER for name, _ in more):
        headers.append((RETRY_AFTER, str(max(1, -(-problem.retry_after_ms // 1000)))))
    if isinstance(problem, errors.Unauthorized):
        headers.append(("WWW-Authenticate", "Bearer"))
    body = msgspec.json.encode(document(problem))
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
