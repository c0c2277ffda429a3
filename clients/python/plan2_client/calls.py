"""Every call of the API as a value: what to send, and how its answer reads.

Both clients are made of these functions, so a call's parameters and its answer stand once. Nothing
here reaches anything. `timeout_ms` is the call's deadline, the client's own where it is None.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

from plan2_client.errors import NotFound, Plan2Error, from_answer
from plan2_client.models import (
    CacheEntry,
    ConfigEntry,
    CrossDbResult,
    Operation,
    Page,
    QueryResult,
    RateLimit,
    Route,
    Service,
    Session,
    Statement,
    Written,
    given,
)

T = TypeVar("T")
Wire = Mapping[str, Any]
Mode = Literal["read", "outbox", "saga", "atomic"]
Algorithm = Literal["fixed-window", "sliding-window", "gcra"]
OnStoreFailure = Literal["local", "open", "closed"]

LONGEST_TIMEOUT_MS = 60_000
STREAM = "application/x-ndjson"


@dataclass(frozen=True)
class Answer:
    """What came back; `headers` by lower-case names, `document` None without a body."""

    status: int
    headers: Mapping[str, str]
    document: Any


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and `read` for its answer below 400."""

    method: str
    path: str
    read: Callable[[Answer], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: int | None = None
    absent: Callable[[], T] | None = None

    def result(self, answer: Answer) -> T:
        """The answer as this call's type; raises Plan2Error."""
        if answer.status < 400:
            return self.read(answer)
        error = from_answer(answer.status, answer.document)
        if self.absent is not None and isinstance(error, NotFound):
            return self.absent()
        raise error


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
    return _post("/api/v2/query", statement.wire(), timeout_ms, _query_result)


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

    return _post("/api/v2/route", statement.wire(), timeout_ms, read)


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
    return _post("/api/v2/batch", body, timeout_ms, read)


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
    return _get_or_none(f"/api/v2/cross-db/{_part(id_or_key)}", timeout_ms, _cross_db_result)


def databases(*, timeout_ms: int | None = None) -> Call[dict[str, Any]]:
    """Each engine's `configured`, `status`, `version`, `capabilities`, `pool`, `latency`."""
    return _get("/api/v2/databases", timeout_ms, lambda answer: dict(answer.document["engines"]))


def health(*, timeout_ms: int | None = None) -> Call[dict[str, Any]]:
    """`status` (ok, degraded, down) and each engine's state."""
    return _get("/api/v2/health/all", timeout_ms, lambda answer: dict(answer.document))


def is_ready() -> Call[None]:
    """Raises Unavailable until the required engines were reached once."""
    return _get("/readyz", 1000, lambda _: None)


def cache_get(
    key: str, *, namespace: str | None = None, timeout_ms: int | None = None
) -> Call[CacheEntry | None]:
    """The value, None when there is none."""

    def read(answer: Answer) -> CacheEntry:
        said = answer.document
        return CacheEntry(value=said["value"], ttl=said.get("ttl"), **_provenance(answer))

    headers = _namespace(namespace)
    return _get_or_none(f"/api/v2/cache/{_part(key)}", timeout_ms, read, headers)


def cache_put(
    key: str,
    value: Any,
    *,
    ttl: int | None = None,
    namespace: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Written]:
    """Keep a JSON value for `ttl` seconds, without one until it is deleted."""
    body = {"value": value, **given(ttl=ttl)}
    headers = _namespace(namespace)
    return _put(f"/api/v2/cache/{_part(key)}", body, timeout_ms, _written, headers)


def cache_delete(
    key: str, *, namespace: str | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return _delete(f"/api/v2/cache/{_part(key)}", timeout_ms, _namespace(namespace))


def session_store(
    id: str,
    data: Any,
    *,
    ttl: int | None = None,
    durable: bool | None = None,
    timeout_ms: int | None = None,
) -> Call[Written]:
    """Keep a session for `ttl` seconds (3600); `durable` (so it is) also in PostgreSQL."""
    body = {"data": data, **given(ttl=ttl, durable=durable)}
    return _put(f"/api/v2/sessions/{_part(id)}", body, timeout_ms, _written)


def session_get(id: str, *, timeout_ms: int | None = None) -> Call[Session | None]:
    """The session, None when there is none; its ttl is not extended."""

    def read(answer: Answer) -> Session:
        said = answer.document
        return Session(id=id, data=said["data"], ttl=said.get("ttl"), **_provenance(answer))

    return _get_or_none(f"/api/v2/sessions/{_part(id)}", timeout_ms, read)


def session_delete(id: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return _delete(f"/api/v2/sessions/{_part(id)}", timeout_ms)


def config_get(user: str, key: str, *, timeout_ms: int | None = None) -> Call[ConfigEntry | None]:
    """The value with its version, None when there is none."""

    def read(answer: Answer) -> ConfigEntry:
        said = answer.document
        origin = _provenance(answer)
        origin["source"] = said.get("source") or origin["source"]
        return ConfigEntry(value=said["value"], version=said.get("version"), **origin)

    return _get_or_none(_config(user, key), timeout_ms, read)


def config_put(
    user: str,
    key: str,
    value: Any,
    *,
    if_match: int | None = None,
    create_only: bool = False,
    actor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[int]:
    """Write, and the new version.

    Raises VersionMismatch where the value no longer has version `if_match`, or exists and
    `create_only` is set. `actor` is who did it, else the pod's service account.
    """
    headers = _preconditions(if_match, create_only, actor)
    return _put(
        _config(user, key),
        {"value": value},
        timeout_ms,
        lambda answer: int(answer.document["version"]),
        headers,
    )


def config_delete(
    user: str,
    key: str,
    *,
    if_match: int | None = None,
    actor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Written]:
    """Gone afterwards, whether or not it existed; its history stays."""
    return _delete(_config(user, key), timeout_ms, _preconditions(if_match, False, actor))


def config_history(
    user: str,
    key: str,
    *,
    limit: int | None = None,
    cursor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Page]:
    """Newest first: `version`, `oldValue`, `newValue`, `actor`, `at`."""
    path = _with_query(f"{_config(user, key)}/history", limit=limit, cursor=cursor)
    return _get(path, timeout_ms, _page)


def config_cache(
    user: str, key: str, value: Any, *, ttl: int | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """What `get()` says for `ttl` seconds; PostgreSQL is not touched."""
    body = {"value": value, **given(ttl=ttl)}
    return _put(f"{_config(user, key)}/cache", body, timeout_ms, _written)


def config_log_change(
    user: str,
    key: str,
    old_value: Any,
    new_value: Any,
    *,
    actor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[None]:
    """Add to the history a change that was made elsewhere."""
    return Call(
        method="POST",
        path=f"{_config(user, key)}/changes",
        body={"oldValue": old_value, "newValue": new_value},
        headers=_preconditions(None, False, actor),
        timeout_ms=timeout_ms,
        read=lambda _: None,
    )


def rate_limit_check(
    client_id: str,
    *,
    window_ms: int = 900_000,
    limit: int = 100,
    cost: int | None = None,
    algorithm: Algorithm | None = None,
    exact: bool | None = None,
    peek: bool | None = None,
    on_store_failure: OnStoreFailure | None = None,
    timeout_ms: int | None = None,
) -> Call[RateLimit]:
    """Count one hit (`cost`), unless it is over the limit: then `allowed` is False.

    The counter is (client_id, algorithm, window_ms), shared by all services of the resource.
    `peek` counts nothing. Nothing is raised for a denial.
    """
    body = given(
        clientId=client_id,
        windowMs=window_ms,
        limit=limit,
        cost=cost,
        algorithm=algorithm,
        exact=exact,
        peek=peek,
        onStoreFailure=on_store_failure,
    )

    def read(answer: Answer) -> RateLimit:
        said = answer.document
        handed_on = ("RateLimit-Policy", "RateLimit", "Retry-After")
        return RateLimit(
            allowed=said["allowed"],
            limit=said["limit"],
            remaining=said["remaining"],
            total_hits=said["totalHits"],
            reset_ms=said["resetMs"],
            retry_after_ms=said.get("retryAfterMs"),
            source=said.get("source", ""),
            degraded=said.get("degraded", False),
            headers={
                n: answer.headers[n.lower()] for n in handed_on if n.lower() in answer.headers
            },
        )

    return _post("/api/v2/rate-limit/check", body, timeout_ms, read)


def rate_limit_reset(client_id: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Forget every counter of the client."""
    return _delete(f"/api/v2/rate-limit/{_part(client_id)}", timeout_ms)


def analytics_log(requests: Wire | Sequence[Wire], *, timeout_ms: int | None = None) -> Call[int]:
    """Hand over requests that were served, and how many were taken.

    Each has `method`, `path`, `status`, `durationMs`, `clientId`; other members are kept as they
    are.
    """
    body = dict(requests) if isinstance(requests, Mapping) else [dict(one) for one in requests]
    return _post(
        "/api/v2/analytics/requests",
        body,
        timeout_ms,
        lambda answer: int(answer.document["accepted"]),
    )


def analytics_summary(
    *,
    since: str | None = None,
    group_by: Literal["path", "method", "status", "clientId"] | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Page]:
    """Counts, errors and percentiles by group; `since` is `15m` or a time as in RFC 3339."""
    path = _with_query(
        "/api/v2/analytics/requests", since=since, groupBy=group_by, limit=limit, cursor=cursor
    )
    return _get(path, timeout_ms, _page)


def service_register(
    name: str,
    instance: str,
    url: str,
    *,
    metadata: Wire | None = None,
    ttl: int | None = None,
    timeout_ms: int | None = None,
) -> Call[Written]:
    """Say that an instance lives, for `ttl` seconds (30); sent again it is the heartbeat."""
    body = {"url": url, **given(metadata=metadata, ttl=ttl)}
    return _put(_service(name, instance), body, timeout_ms, _written)


def service_get(name: str, *, timeout_ms: int | None = None) -> Call[Service | None]:
    """The live instances, None when there is none."""

    def read(answer: Answer) -> Service:
        return Service(name=name, instances=list(answer.document["instances"]))

    return _get_or_none(f"/api/v2/registry/services/{_part(name)}", timeout_ms, read)


def service_list(
    *, limit: int | None = None, cursor: str | None = None, timeout_ms: int | None = None
) -> Call[Page]:
    """Every service with a live instance."""
    path = _with_query("/api/v2/registry/services", limit=limit, cursor=cursor)
    return _get(path, timeout_ms, _page)


def service_remove(name: str, instance: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone at once, instead of when its ttl is over."""
    return _delete(_service(name, instance), timeout_ms)


def routes_put(
    route: str, target: Any, *, ttl: int | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """Keep where a route leads."""
    body = {"target": target, **given(ttl=ttl)}
    return _put(f"/api/v2/registry/routes/{_part(route)}", body, timeout_ms, _written)


def routes_get(route: str, *, timeout_ms: int | None = None) -> Call[Any]:
    """Where the route leads, None when nobody said."""
    path = f"/api/v2/registry/routes/{_part(route)}"
    return _get_or_none(path, timeout_ms, lambda answer: answer.document["target"])


def routes_delete(route: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return _delete(f"/api/v2/registry/routes/{_part(route)}", timeout_ms)


def _get(path: str, timeout_ms: int | None, read: Callable[[Answer], T]) -> Call[T]:
    return Call(method="GET", path=path, timeout_ms=timeout_ms, read=read)


def _get_or_none(
    path: str,
    timeout_ms: int | None,
    read: Callable[[Answer], T],
    headers: Mapping[str, str] | None = None,
) -> Call[T | None]:
    return Call(
        method="GET",
        path=path,
        headers=headers or {},
        timeout_ms=timeout_ms,
        read=read,
        absent=lambda: None,
    )


def _post(path: str, body: Any, timeout_ms: int | None, read: Callable[[Answer], T]) -> Call[T]:
    return Call(method="POST", path=path, body=body, timeout_ms=timeout_ms, read=read)


def _put(
    path: str,
    body: Any,
    timeout_ms: int | None,
    read: Callable[[Answer], T],
    headers: Mapping[str, str] | None = None,
) -> Call[T]:
    return Call(
        method="PUT",
        path=path,
        body=body,
        headers=headers or {},
        timeout_ms=timeout_ms,
        read=read,
    )


def _delete(
    path: str, timeout_ms: int | None, headers: Mapping[str, str] | None = None
) -> Call[Written]:
    return Call(
        method="DELETE", path=path, headers=headers or {}, timeout_ms=timeout_ms, read=_written
    )


def _part(name: str) -> str:
    """A name as one segment of a path."""
    if not name:
        raise ValueError("the name is empty")
    if name in (".", ".."):
        # A path with a dot segment is another path.
        return name.replace(".", "%2E")
    return quote(name, safe="")


def _config(user: str, key: str) -> str:
    return f"/api/v2/config/{_part(user)}/{_part(key)}"


def _service(name: str, instance: str) -> str:
    return f"/api/v2/registry/services/{_part(name)}/{_part(instance)}"


def _with_query(path: str, **members: Any) -> str:
    members = given(**members)
    return f"{path}?{urlencode(members)}" if members else path


def _namespace(namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {"Plan2-Namespace": namespace}


def _preconditions(if_match: int | None, create_only: bool, actor: str | None) -> dict[str, str]:
    headers = {}
    if if_match is not None:
        headers["If-Match"] = f'"{if_match}"'
    if create_only:
        headers["If-None-Match"] = "*"
    if actor is not None:
        headers["Plan2-Actor"] = actor
    return headers


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


def _page(answer: Answer) -> Page:
    return Page(items=list(answer.document["items"]), next=answer.document.get("next"))


def _written(answer: Answer) -> Written:
    return Written(**_provenance(answer))


def _provenance(answer: Answer) -> dict[str, Any]:
    return {
        "source": answer.headers.get("plan2-source"),
        "degraded": answer.headers.get("plan2-degraded") == "true",
        "fallback_from": answer.headers.get("plan2-fallback-from"),
    }
