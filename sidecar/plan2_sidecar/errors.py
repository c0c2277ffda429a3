"""Everything that can be said to a caller instead of an answer, as one tree.

    Problem
    ├── Refused                   the caller must change the request
    │   ├── MalformedJson         400 malformed_json
    │   ├── InvalidRequest        400 invalid_request
    │   ├── UnknownEngine         400 unknown_engine
    │   ├── ParameterMismatch     400 parameter_mismatch
    │   ├── MultipleStatements    400 multiple_statements
    │   ├── Unauthorized          401 unauthorized
    │   ├── CrossOrigin           403 cross_origin
    │   ├── NotFound              404 not_found
    │   ├── MethodNotAllowed      405 method_not_allowed
    │   ├── NotAcceptable         406 not_acceptable
    │   ├── VersionMismatch       412 version_mismatch
    │   ├── BodyTooLarge          413 body_too_large
    │   ├── UnsupportedMediaType  415 unsupported_media_type
    │   ├── Misdirected           421 misdirected_request
    │   ├── RateLimited           429 rate_limited
    │   ├── EngineNotConfigured   422 engine_not_configured
    │   ├── AmbiguousRoute        422 ambiguous_route
    │   ├── IdempotencyConflict   409 idempotency_conflict
    │   ├── NotAtomic             422 not_atomic
    │   └── NotIdempotent         422 not_idempotent
    ├── QueryRejected             422 query_rejected: the engine understood and said no
    │   ├── ReadOnly              403 read_only
    │   ├── PermissionDenied      403 permission_denied
    │   └── Conflict              409 conflict (retryable: serialization, deadlock)
    ├── Unavailable               503: the caller may come back, Retry-After says when
    │   ├── EngineUnavailable     503 engine_unavailable: nothing was run
    │   │   └── ConnectionLost    503 engine_unavailable: sent, the outcome is unknown
    │   ├── EngineAuthFailed      503 engine_auth_failed
    │   ├── StoreFull             503 store_full
    │   ├── BreakerOpen           503 breaker_open
    │   ├── BulkheadFull          503 bulkhead_full
    │   └── SchemaOutdated        503 schema_outdated
    ├── DeadlineExceeded          504 deadline_exceeded: retryable only for reads
    ├── OperationFailed           424 operation_failed: it failed and left nothing behind
    ├── CompensationFailed        500 compensation_failed: it needs a human
    ├── OutcomeUnknown            504 outcome_unknown: poll, or send the same key again
    └── Internal                  500 internal: our fault

Engine modules translate their driver's exceptions into this tree, chained with `from`. Only
`Unavailable` and `DeadlineExceeded` say anything about an engine's health; `QueryRejected` and
`Refused` never do. `api/problems.py` makes answers of them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from plan2_contract.engines import Engine

TYPE_BASE: Final = "https://plan2.io/problems/"


class Problem(Exception):
    """An answer other than the one asked for.

    `retryable` None means the member is left out. `members` are further members of the problem
    document, by their wire names.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The sidecar failed"
    default_retryable: ClassVar[bool | None] = None
    default_retry_after_ms: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str,
        *,
        database: Engine | None = None,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        engine_code: str | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.database = database
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after_ms = (
            self.default_retry_after_ms if retry_after_ms is None else retry_after_ms
        )
        self.engine_code = engine_code
        self.members = dict(members or {})

    def document(self) -> dict[str, Any]:
        """What the caller reads, by its wire names; members that do not apply are absent."""
        members = {
            "type": TYPE_BASE + self.code,
            "title": self.title,
            "status": self.status,
            # A header that is not UTF-8 comes as surrogates, which JSON has no bytes for.
            "detail": self.detail.encode("utf-8", "backslashreplace").decode(),
            "code": self.code,
            "database": self.database,
            "retryable": self.retryable,
            "retryAfterMs": self.retry_after_ms,
            "engineCode": self.engine_code,
            **self.members,
        }
        return {name: value for name, value in members.items() if value is not None}


class Refused(Problem):
    """The request cannot be served as it stands."""

    status = 400
    code = "invalid_request"
    title = "The request is not valid"


class MalformedJson(Refused):
    """The body is not JSON."""

    code = "malformed_json"
    title = "The body is not JSON"


class InvalidRequest(Refused):
    """The body is JSON, and not what this call takes."""


class UnknownEngine(Refused):
    """No engine is called that."""

    code = "unknown_engine"
    title = "No engine has that name"


class ParameterMismatch(Refused):
    """The parameters do not fit the statement, in number, name or type."""

    code = "parameter_mismatch"
    title = "The parameters do not fit the statement"


class MultipleStatements(Refused):
    """One call runs one statement."""

    code = "multiple_statements"
    title = "One call takes one statement"


class Unauthorized(Refused):
    """The token is missing or not valid."""

    status = 401
    code = "unauthorized"
    title = "A valid token is needed"


class CrossOrigin(Refused):
    """A page of another origin made this call."""

    status = 403
    code = "cross_origin"
    title = "Calls from other origins are refused"


class NotFound(Refused):
    """Nothing is at this path."""

    status = 404
    code = "not_found"
    title = "Nothing is here"


class MethodNotAllowed(Refused):
    """The path does not take this method."""

    status = 405
    code = "method_not_allowed"
    title = "The path does not take this method"


class NotAcceptable(Refused):
    """The engine cannot answer in the form that was asked for."""

    status = 406
    code = "not_acceptable"
    title = "The answer cannot take that form"


class VersionMismatch(Refused):
    """What If-Match or If-None-Match asked for does not hold; nothing was written."""

    status = 412
    code = "version_mismatch"
    title = "The version is another one"


class BodyTooLarge(Refused):
    """The body is longer than this sidecar reads."""

    status = 413
    code = "body_too_large"
    title = "The body is too large"


class UnsupportedMediaType(Refused):
    """The body's content type is not JSON."""

    status = 415
    code = "unsupported_media_type"
    title = "The content type is not JSON"


class Misdirected(Refused):
    """The Host header names neither localhost nor an allowed host."""

    status = 421
    code = "misdirected_request"
    title = "The Host header is not one of ours"


class EngineNotConfigured(Refused):
    """The engine is known, and this sidecar has no connection for it."""

    status = 422
    code = "engine_not_configured"
    title = "The engine is not configured"


class RateLimited(Refused):
    """The client has used up its limit, and the caller asked for that to be an error."""

    status = 429
    code = "rate_limited"
    title = "The limit is reached"


class AmbiguousRoute(Refused):
    """Nothing in the request says which engine is meant."""

    status = 422
    code = "ambiguous_route"
    title = "The engine cannot be told from the request"


class IdempotencyConflict(Refused):
    """The key was used before, for another request."""

    status = 409
    code = "idempotency_conflict"
    title = "The idempotency key belongs to another request"


class NotAtomic(Refused):
    """These operations cannot be one transaction."""

    status = 422
    code = "not_atomic"
    title = "The operations cannot be one transaction"


class NotIdempotent(Refused):
    """A write that cannot be repeated safely, and nobody says that it may."""

    status = 422
    code = "not_idempotent"
    title = "The write cannot be repeated safely"


class QueryRejected(Problem):
    """The engine is well and refused the statement."""

    status = 422
    code = "query_rejected"
    title = "The engine rejected the query"


class ReadOnly(QueryRejected):
    """A write where only reads were allowed."""

    status = 403
    code = "read_only"
    title = "Only reads are allowed here"


class PermissionDenied(QueryRejected):
    """The application role may not do this."""

    status = 403
    code = "permission_denied"
    title = "The role may not do this"


class Conflict(QueryRejected):
    """Another write was first; pass retryable=True for serialization failures and deadlocks."""

    status = 409
    code = "conflict"
    title = "Another write came first"


class Unavailable(Problem):
    """Nobody's fault but the moment's."""

    status = 503
    code = "engine_unavailable"
    title = "The engine is not available"
    default_retryable = True
    default_retry_after_ms = 1000


class EngineUnavailable(Unavailable):
    """The engine could not be reached, or is not serving; the statement was not run."""


class ConnectionLost(EngineUnavailable):
    """The connection broke after the statement was sent: whether it ran is unknown.

    The edge decides `retryable`: true for reads, false for writes.
    """

    title = "The connection to the engine was lost"


class EngineAuthFailed(Unavailable):
    """The engine refused our credentials; a rotation under way heals it."""

    code = "engine_auth_failed"
    title = "The engine refused the sidecar's credentials"
    default_retry_after_ms = 5000


class StoreFull(Unavailable):
    """The engine is out of memory or disk for writes."""

    code = "store_full"
    title = "The engine has no room"
    default_retry_after_ms = 5000


class BreakerOpen(Unavailable):
    """The engine has been failing and is left alone for a while."""

    code = "breaker_open"
    title = "The engine is being left to recover"


class BulkheadFull(Unavailable):
    """Too many calls to this engine are under way."""

    code = "bulkhead_full"
    title = "Too many calls to the engine are under way"
    default_retry_after_ms = 100


class SchemaOutdated(Unavailable):
    """The `plan2` schema is older than this call needs."""

    code = "schema_outdated"
    title = "The schema is older than this call needs"


class DeadlineExceeded(Problem):
    """The time the caller gave is over; the edge sets `retryable` for reads."""

    status = 504
    code = "deadline_exceeded"
    title = "The deadline passed"


class OperationFailed(Problem):
    """A cross-database operation failed; what it had done was compensated, provably."""

    status = 424
    code = "operation_failed"
    title = "The operation failed and nothing of it is left"


class CompensationFailed(Problem):
    """A cross-database operation failed and something of it is left; `needsHuman` lists what."""

    status = 500
    code = "compensation_failed"
    title = "The operation failed and needs a human"


class OutcomeUnknown(Problem):
    """Whether a cross-database operation, or a step of it, was done cannot be told yet."""

    status = 504
    code = "outcome_unknown"
    title = "The outcome is not known yet"
    default_retryable = True


class Internal(Problem):
    """A fault of the sidecar itself; the log says more."""
