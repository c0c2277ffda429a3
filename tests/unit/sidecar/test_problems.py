"""Problems on the wire: their members and headers, and a code for each."""

import json

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar import errors
from plan2_sidecar.api import problems
from plan2_sidecar.errors import Problem

# As the API's description lists them, with their statuses.
CODES = {
    "malformed_json": 400,
    "invalid_request": 400,
    "unknown_engine": 400,
    "parameter_mismatch": 400,
    "multiple_statements": 400,
    "unauthorized": 401,
    "cross_origin": 403,
    "read_only": 403,
    "permission_denied": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "conflict": 409,
    "version_mismatch": 412,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected_request": 421,
    "query_rejected": 422,
    "engine_not_configured": 422,
    "ambiguous_route": 422,
    "rate_limited": 429,
    "engine_unavailable": 503,
    "breaker_open": 503,
    "bulkhead_full": 503,
    "store_full": 503,
    "engine_auth_failed": 503,
    "schema_outdated": 503,
    "deadline_exceeded": 504,
    "operation_failed": 424,
    "compensation_failed": 500,
    "outcome_unknown": 504,
    "idempotency_conflict": 409,
    "not_atomic": 422,
    "not_idempotent": 422,
    "internal": 500,
}


def kinds(kind: type[Problem]) -> list[type[Problem]]:
    return [kind, *(below for child in kind.__subclasses__() for below in kinds(child))]


def test_every_code_has_its_status() -> None:
    found = {kind.code: kind.status for kind in kinds(Problem)}

    assert found == CODES


@pytest.mark.parametrize("kind", kinds(Problem), ids=lambda kind: kind.__name__)
def test_every_problem_is_a_whole_document(kind: type[Problem]) -> None:
    whole = kind("the detail").document()

    assert whole["type"] == f"https://plan2.io/problems/{kind.code}"
    assert whole["status"] == kind.status
    assert whole["detail"] == "the detail"
    assert whole["title"]
    assert None not in whole.values()


def test_an_engine_that_is_down_says_which_and_when_to_come_back() -> None:
    response = problems.response(
        errors.EngineUnavailable("no", database=Engine.CLICKHOUSE, engine_code="209")
    )

    assert response.status == 503
    assert response.content_type == "application/problem+json"
    assert response.headers["Retry-After"] == "1"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "type": "https://plan2.io/problems/engine_unavailable",
        "title": "The engine is not available",
        "status": 503,
        "detail": "no",
        "code": "engine_unavailable",
        "database": "clickhouse",
        "retryable": True,
        "retryAfterMs": 1000,
        "engineCode": "209",
    }


def test_a_missing_token_is_asked_for() -> None:
    assert problems.response(errors.Unauthorized("no")).headers["WWW-Authenticate"] == "Bearer"


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    waits = [
        problems.response(errors.BulkheadFull("no", retry_after_ms=ms)).headers["Retry-After"]
        for ms in (0, 1, 1000, 1001)
    ]

    assert waits == ["1", "1", "1", "2"]
