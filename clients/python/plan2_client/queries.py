"""Queries, cross-database work and status: each call of the API as a function.

Both clients are made of these functions, so a call's parameters and its answer stand once.
`timeout_ms` is the call's deadline, the client's own where it is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from plan2_client.call import LONGEST_TIMEOUT_MS, Answer, Call, get, get_or_none, post, segment
from plan2_client.errors import Plan2Error, from_answer
from plan2_client.models import CrossDbResult, Operation, QueryResult, Route, Statement, given

Wire = Mapping[str, Any]
Mode = Literal["read", "outbox", "saga", "atomic"]

STREAM = "application/x-ndjson"


def query(
    text: Any,
    *,
    params: Any = None,
    target_database: str | None = None,
    operation: str | None = None,
    read_only: bool | None = None,
    cache_ttl_ms: int | None = None,
    max_rows: int | None = None,
    timeout_ms: int | None = None,
) -> Call[QueryResult]:
    """Run one statement on one engine.

    `text` is SQL, AQL, GraphQL, a Redis command (also as a list), or an object for MongoDB and
    Weaviate; `params` a list or an object, as the engine has it.
    """
    statement = Statement(
        query=text,
        params=params,
        target_database=target_database,
        operation=operation,
        read_only=read_only,
        cache_ttl_ms=cache_ttl_ms,
        max_rows=max_rows,
    )
    return post("/api/v2/query", statement.wire(), timeout_ms, _query_result)


def stream(
    text: Any,
    *,
    params: Any = None,
    target_database: str | None = None,
    operation: str | None = None,
    read_only: bool | None = None,
    max_rows: int | None = None,
    timeout_ms: int = LONGEST_TIMEOUT_MS,
) -> Call[None]:
    """The rows of one statement as they come, however many; the deadline covers all of them."""
    statement = Statement(
        query=text,
        params=params,
        target_database=target_database,
        operation=operation,
        read_only=read_only,
        max_rows=max_rows,
    )
    return Call(
        method="POST",
        path="/api/v2/query",
        body=statement.wire(),
        headers={"Accept": STREAM},
        timeout_ms=timeout_ms,
        read=lambda _: None,
    )


def route(
    text: Any,
    *,
    params: Any = None,
    target_database: str | None = None,
    operation: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Route]:
    """Where `query()` would go and why; nothing is run."""
    statement = Statement(
        query=text, params=params, target_database=target_database, operation=operation
    )

    def read(answer: Answer) -> Route:
        said = answer.document
        return Route(
            database=said.get("database", ""),
            route=said.get("route", ""),
            write=said.get("write", False),
            candidates=said.get("candidates", []),
            reason=said.get("reason", ""),
        )

    return post("/api/v2/route", statement.wire(), timeout_ms, read)


def batch(
    queries: Sequence[Statement | Wire], *, timeout_ms: int | None = None
) -> Call[list[QueryResult | Plan2Error]]:
    """At most 100 queries at once, answered in their order; one that failed is its error."""

    def read(answer: Answer) -> list[QueryResult | Plan2Error]:
        return [
            from_answer(result["status"], result["problem"])
            if "problem" in result
            else QueryResult.of(result)
            for result in answer.document["results"]
        ]

    body = {"queries": [_wire(one) for one in queries]}
    return post("/api/v2/batch", body, timeout_ms, read)


def cross_db(
    operations: Sequence[Operation | Wire],
    *,
    mode: Mode | None = None,
    idempotency_key: str | None = None,
    timeout_ms: int | None = None,
) -> Call[CrossDbResult]:
    """Operations across databases: `read`, `outbox`, `saga` or `atomic`.

    A result that is not `finished` goes on without the caller: ask `cross_db_get(result.id)`.
    Without a key one is made up, except for reads.
    """
    key = idempotency_key or (None if mode == "read" else uuid4().hex)
    body = given(mode=mode, operations=[_wire(one) for one in operations])
    return Call(
        method="POST",
        path="/api/v2/cross-db",
        body=body,
        headers={"Idempotency-Key": key} if key else {},
        timeout_ms=timeout_ms,
        read=_cross_db_result,
    )


def cross_db_get(id_or_key: str, *, timeout_ms: int | None = None) -> Call[CrossDbResult | None]:
    """How a run across databases stands; None when there is none."""
    return get_or_none(f"/api/v2/cross-db/{segment(id_or_key)}", timeout_ms, _cross_db_result)


def databases(*, timeout_ms: int | None = None) -> Call[dict[str, Any]]:
    """Each engine's `configured`, `status`, `version`, `capabilities`, `pool`, `latency`."""
    return get("/api/v2/databases", timeout_ms, lambda answer: dict(answer.document["engines"]))


def health(*, timeout_ms: int | None = None) -> Call[dict[str, Any]]:
    """`status` (ok, degraded, down) and each engine's state."""
    return get("/api/v2/health/all", timeout_ms, lambda answer: dict(answer.document))


def is_ready() -> Call[None]:
    """Raises Unavailable until the required engines were reached once."""
    return get("/readyz", 1000, lambda _: None)


def _wire(one: Statement | Operation | Wire) -> Wire:
    return one.wire() if isinstance(one, Statement | Operation) else one


def _query_result(answer: Answer) -> QueryResult:
    return QueryResult.of(answer.document)


def _cross_db_result(answer: Answer) -> CrossDbResult:
    said = answer.document
    return CrossDbResult(
        id=said["id"],
        mode=said.get("mode", ""),
        state=said["state"],
        operations=list(said.get("operations", [])),
    )
