"""Caches, sessions, configuration, limits, analytics, registry: each call as a function.

As in `queries`: both clients are made of these, and `timeout_ms` is the call's deadline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from plan2_client.call import (
    Answer,
    Call,
    delete,
    get,
    get_or_none,
    post,
    provenance,
    put,
    segment,
    with_query,
    written,
)
from plan2_client.models import (
    CacheEntry,
    ConfigEntry,
    Page,
    RateLimit,
    Service,
    Session,
    Written,
    given,
)

Wire = Mapping[str, Any]
Algorithm = Literal["fixed-window", "sliding-window", "gcra"]
OnStoreFailure = Literal["local", "open", "closed"]


def cache_get(
    key: str, *, namespace: str | None = None, timeout_ms: int | None = None
) -> Call[CacheEntry | None]:
    """The value, None when there is none."""

    def read(answer: Answer) -> CacheEntry:
        said = answer.document
        return CacheEntry(value=said["value"], ttl=said.get("ttl"), **provenance(answer))

    headers = _namespace(namespace)
    return get_or_none(f"/api/v2/cache/{segment(key)}", timeout_ms, read, headers)


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
    return put(f"/api/v2/cache/{segment(key)}", body, timeout_ms, written, headers)


def cache_delete(
    key: str, *, namespace: str | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return delete(f"/api/v2/cache/{segment(key)}", timeout_ms, _namespace(namespace))


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
    return put(f"/api/v2/sessions/{segment(id)}", body, timeout_ms, written)


def session_get(id: str, *, timeout_ms: int | None = None) -> Call[Session | None]:
    """The session, None when there is none; its ttl is not extended."""

    def read(answer: Answer) -> Session:
        said = answer.document
        return Session(id=id, data=said["data"], ttl=said.get("ttl"), **provenance(answer))

    return get_or_none(f"/api/v2/sessions/{segment(id)}", timeout_ms, read)


def session_delete(id: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return delete(f"/api/v2/sessions/{segment(id)}", timeout_ms)


def config_get(user: str, key: str, *, timeout_ms: int | None = None) -> Call[ConfigEntry | None]:
    """The value with its version, None when there is none."""

    def read(answer: Answer) -> ConfigEntry:
        said = answer.document
        origin = provenance(answer)
        origin["source"] = said.get("source") or origin["source"]
        return ConfigEntry(value=said["value"], version=said.get("version"), **origin)

    return get_or_none(_config(user, key), timeout_ms, read)


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
    return put(
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
    return delete(_config(user, key), timeout_ms, _preconditions(if_match, False, actor))


def config_history(
    user: str,
    key: str,
    *,
    limit: int | None = None,
    cursor: str | None = None,
    timeout_ms: int | None = None,
) -> Call[Page]:
    """Newest first: `version`, `oldValue`, `newValue`, `actor`, `at`."""
    path = with_query(f"{_config(user, key)}/history", limit=limit, cursor=cursor)
    return get(path, timeout_ms, _page)


def config_cache(
    user: str, key: str, value: Any, *, ttl: int | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """What `get()` says for `ttl` seconds; PostgreSQL is not touched."""
    body = {"value": value, **given(ttl=ttl)}
    return put(f"{_config(user, key)}/cache", body, timeout_ms, written)


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

    return post("/api/v2/rate-limit/check", body, timeout_ms, read)


def rate_limit_reset(client_id: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Forget every counter of the client."""
    return delete(f"/api/v2/rate-limit/{segment(client_id)}", timeout_ms)


def analytics_log(requests: Wire | Sequence[Wire], *, timeout_ms: int | None = None) -> Call[int]:
    """Hand over requests that were served, and how many were taken.

    Each has `method`, `path`, `status`, `durationMs`, `clientId`; other members are kept as they
    are.
    """
    body = dict(requests) if isinstance(requests, Mapping) else [dict(one) for one in requests]
    return post(
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
    path = with_query(
        "/api/v2/analytics/requests", since=since, groupBy=group_by, limit=limit, cursor=cursor
    )
    return get(path, timeout_ms, _page)


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
    return put(_service(name, instance), body, timeout_ms, written)


def service_get(name: str, *, timeout_ms: int | None = None) -> Call[Service | None]:
    """The live instances, None when there is none."""

    def read(answer: Answer) -> Service:
        return Service(name=name, instances=list(answer.document["instances"]))

    return get_or_none(f"/api/v2/registry/services/{segment(name)}", timeout_ms, read)


def service_list(
    *, limit: int | None = None, cursor: str | None = None, timeout_ms: int | None = None
) -> Call[Page]:
    """Every service with a live instance."""
    path = with_query("/api/v2/registry/services", limit=limit, cursor=cursor)
    return get(path, timeout_ms, _page)


def service_remove(name: str, instance: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone at once, instead of when its ttl is over."""
    return delete(_service(name, instance), timeout_ms)


def routes_put(
    route: str, target: Any, *, ttl: int | None = None, timeout_ms: int | None = None
) -> Call[Written]:
    """Keep where a route leads."""
    body = {"target": target, **given(ttl=ttl)}
    return put(f"/api/v2/registry/routes/{segment(route)}", body, timeout_ms, written)


def routes_get(route: str, *, timeout_ms: int | None = None) -> Call[Any]:
    """Where the route leads, None when nobody said."""
    path = f"/api/v2/registry/routes/{segment(route)}"
    return get_or_none(path, timeout_ms, lambda answer: answer.document["target"])


def routes_delete(route: str, *, timeout_ms: int | None = None) -> Call[Written]:
    """Gone afterwards, whether or not it existed."""
    return delete(f"/api/v2/registry/routes/{segment(route)}", timeout_ms)


def _config(user: str, key: str) -> str:
    return f"/api/v2/config/{segment(user)}/{segment(key)}"


def _service(name: str, instance: str) -> str:
    return f"/api/v2/registry/services/{segment(name)}/{segment(instance)}"


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


def _page(answer: Answer) -> Page:
    return Page(items=list(answer.document["items"]), next=answer.document.get("next"))
