"""What a call raises, as one tree by what the caller can do.

    Plan2Error
    ├── InvalidRequest        change the request (every 4xx without a class of its own)
    │   ├── NotFound          404
    │   ├── AmbiguousRoute    422: name the engine with target_database
    │   ├── EngineNotConfigured  422
    │   ├── NotAtomic         422, and NotIdempotent
    ├── Unauthorized          401
    ├── QueryRejected         422: the engine understood and said no
    │   ├── ReadOnly          403
    │   ├── PermissionDenied  403
    │   └── Conflict          409, look at `retryable`
    ├── IdempotencyConflict   409: the key was used with another body
    ├── VersionMismatch       412: somebody wrote in between, read again
    ├── RateLimited           429
    ├── Unavailable           503: come back after `retry_after_ms`
    │   ├── EngineUnavailable, BreakerOpen, BulkheadFull
    │   └── StoreFull, EngineAuthFailed, SchemaOutdated
    ├── DeadlineExceeded      504, or nothing came in time
    ├── OperationFailed       424: failed, and every step was compensated
    │   └── CompensationFailed   500: `members` say what needs a human
    ├── OutcomeUnknown        504: ask `cross_db_get`, or send the same key again
    ├── Internal              500: the sidecar's log says more
    ├── SidecarUnreachable    no connection: nothing was sent
    └── ConnectionLost        sent, and no whole answer: whether it ran is unknown
        └── StreamCut         the rows ended without their last line

Built from `application/problem+json`; a code that this version does not know falls back on the
class of its status.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Plan2Error(Exception):
    """An answer other than the one asked for.

    `status` is 0 where there was no answer. `retryable` is True only where the sidecar says that
    the same call may be sent again. `members` is the whole problem document.
    """

    default_code: ClassVar[str] = "unknown"

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str | None = None,
        title: str = "",
        database: str | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        engine_code: str | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code or self.default_code
        self.title = title
        self.database = database
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.engine_code = engine_code
        self.members = dict(members or {})

    def __str__(self) -> str:
        place = f" on {self.database}" if self.database else ""
        return f"{self.code}{place}: {self.detail}"


class InvalidRequest(Plan2Error):
    """The request cannot be served as it stands."""

    default_code = "invalid_request"


class NotFound(InvalidRequest):
    """Nothing is at this path."""

    default_code = "not_found"


class AmbiguousRoute(InvalidRequest):
    """Nothing in the request says which engine is meant; `members["candidates"]` are possible."""

    default_code = "ambiguous_route"


class EngineNotConfigured(InvalidRequest):
    """The engine is known, and this sidecar has no connection for it."""

    default_code = "engine_not_configured"


class NotAtomic(InvalidRequest):
    """Mode `atomic` takes operations of one engine with transactions."""

    default_code = "not_atomic"


class NotIdempotent(InvalidRequest):
    """A write that may be delivered twice needs `idempotent=True` from its caller."""

    default_code = "not_idempotent"


class Unauthorized(Plan2Error):
    """The token is missing or not valid."""

    default_code = "unauthorized"


class QueryRejected(Plan2Error):
    """The engine is well and refused the statement; `engine_code` is its own code."""

    default_code = "query_rejected"


class ReadOnly(QueryRejected):
    """A write where only reads were allowed."""

    default_code = "read_only"


class PermissionDenied(QueryRejected):
    """The application role may not do this."""

    default_code = "permission_denied"


class Conflict(QueryRejected):
    """Another write was first; `retryable` for serialization failures and deadlocks."""

    default_code = "conflict"


class IdempotencyConflict(Plan2Error):
    """The idempotency key was used before, with another body."""

    default_code = "idempotency_conflict"


class VersionMismatch(Plan2Error):
    """The value has another version than `if_match`, or exists though `create_only` was set."""

    default_code = "version_mismatch"


class RateLimited(Plan2Error):
    """The limit is reached."""

    default_code = "rate_limited"


class Unavailable(Plan2Error):
    """Nobody's fault but the moment's; wait `retry_after_ms`."""

    default_code = "unavailable"


class EngineUnavailable(Unavailable):
    """The engine is not reached, or its connection broke (then `retryable` only for reads)."""

    default_code = "engine_unavailable"


class BreakerOpen(Unavailable):
    """The engine has been failing and is left alone for a while."""

    default_code = "breaker_open"


class BulkheadFull(Unavailable):
    """Too many calls to this engine are under way."""

    default_code = "bulkhead_full"


class StoreFull(Unavailable):
    """The engine is out of memory or disk for writes."""

    default_code = "store_full"


class EngineAuthFailed(Unavailable):
    """The engine refused the sidecar's credentials; a rotation under way heals it."""

    default_code = "engine_auth_failed"


class SchemaOutdated(Unavailable):
    """The `plan2` schema is older than this call needs."""

    default_code = "schema_outdated"


class DeadlineExceeded(Plan2Error):
    """The time was over: `status` 504 when the sidecar said so, 0 when nothing came at all."""

    default_code = "deadline_exceeded"


class OperationFailed(Plan2Error):
    """A step failed and everything before it was compensated; `members` list the operations."""

    default_code = "operation_failed"


class CompensationFailed(OperationFailed):
    """A compensation failed; `members` say what needs a human."""

    default_code = "compensation_failed"


class OutcomeUnknown(Plan2Error):
    """Whether an operation across databases was done cannot be told yet: ask, or send the key."""

    default_code = "outcome_unknown"


class Internal(Plan2Error):
    """A fault of the sidecar itself; its log says more."""

    default_code = "internal"


class SidecarUnreachable(Plan2Error):
    """No connection to the sidecar: nothing was sent."""

    default_code = "sidecar_unreachable"


class ConnectionLost(Plan2Error):
    """The call was sent and no whole answer came: whether it ran is unknown."""

    default_code = "connection_lost"


class StreamCut(ConnectionLost):
    """The rows ended without `$end` or `$error`: there are more that did not arrive."""

    default_code = "stream_cut"


_BY_STATUS: dict[int, type[Plan2Error]] = {
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: VersionMismatch,
    424: OperationFailed,
    429: RateLimited,
    500: Internal,
    503: Unavailable,
    504: DeadlineExceeded,
}


def _tree(kind: type[Plan2Error]) -> list[type[Plan2Error]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


BY_CODE = {kind.default_code: kind for kind in _tree(Plan2Error)}
"""Every code that has a class of its own."""


def from_answer(status: int, document: Any) -> Plan2Error:
    """The error that an answer of 400 and above, or a `$error` line, stands for."""
    members: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    code = members.get("code")
    kind = BY_CODE.get(code or "") or _BY_STATUS.get(status)
    if kind is None:
        kind = InvalidRequest if 400 <= status < 500 else Plan2Error
    detail = members.get("detail") or members.get("title") or f"the sidecar answered {status}"
    return kind(
        str(detail),
        status=status,
        code=code or f"http_{status}",
        title=members.get("title", ""),
        database=members.get("database"),
        retryable=bool(members.get("retryable", False)),
        retry_after_ms=members.get("retryAfterMs"),
        engine_code=members.get("engineCode"),
        members=members,
    )
