'use strict'
/**
 * What a call rejects with, as one tree by what the caller can do.
 *
 *     Plan2Error
 *     ├── InvalidRequest        change the request (every 4xx without a class of its own)
 *     │   ├── NotFound          404
 *     │   ├── AmbiguousRoute    422: name the engine with targetDatabase
 *     │   ├── EngineNotConfigured  422
 *     │   └── NotAtomic         422, and NotIdempotent
 *     ├── Unauthorized          401
 *     ├── QueryRejected         422: the engine understood and said no
 *     │   ├── ReadOnly          403
 *     │   ├── PermissionDenied  403
 *     │   └── Conflict          409, look at `retryable`
 *     ├── IdempotencyConflict   409: the key was used with another body
 *     ├── VersionMismatch       412: somebody wrote in between, read again
 *     ├── RateLimited           429
 *     ├── Unavailable           503: come back after `retryAfterMs`
 *     │   ├── EngineUnavailable, BreakerOpen, BulkheadFull
 *     │   └── StoreFull, EngineAuthFailed, SchemaOutdated
 *     ├── DeadlineExceeded      504, or nothing came in time
 *     ├── OperationFailed       424: failed, and every step was compensated
 *     │   └── CompensationFailed   500: `members` say what needs a human
 *     ├── OutcomeUnknown        504: ask `crossDbGet`, or send the same key again
 *     ├── Internal              500: the sidecar's log says more
 *     ├── SidecarUnreachable    no connection: nothing was sent
 *     └── ConnectionLost        sent, and no whole answer: whether it ran is unknown
 *         └── StreamCut         the rows ended without their last line
 */

/** `status` is 0 where there was no answer; `members` is the whole problem document. */
class Plan2Error extends Error {
  static code = 'unknown'

  constructor (detail, members = {}, options = undefined) {
    const code = members.code ?? new.target.code
    super(`${code}${members.database ? ` on ${members.database}` : ''}: ${detail}`, options)
    this.name = new.target.name
    this.detail = detail
    this.code = code
    this.status = members.status ?? 0
    this.title = members.title ?? ''
    this.database = members.database
    this.retryable = members.retryable ?? false
    this.retryAfterMs = members.retryAfterMs
    this.engineCode = members.engineCode
    this.members = members
  }
}

class InvalidRequest extends Plan2Error { static code = 'invalid_request' }
class NotFound extends InvalidRequest { static code = 'not_found' }
class AmbiguousRoute extends InvalidRequest { static code = 'ambiguous_route' }
class EngineNotConfigured extends InvalidRequest { static code = 'engine_not_configured' }
class NotAtomic extends InvalidRequest { static code = 'not_atomic' }
class NotIdempotent extends InvalidRequest { static code = 'not_idempotent' }
class Unauthorized extends Plan2Error { static code = 'unauthorized' }
class QueryRejected extends Plan2Error { static code = 'query_rejected' }
class ReadOnly extends QueryRejected { static code = 'read_only' }
class PermissionDenied extends QueryRejected { static code = 'permission_denied' }
class Conflict extends QueryRejected { static code = 'conflict' }
class IdempotencyConflict extends Plan2Error { static code = 'idempotency_conflict' }
class VersionMismatch extends Plan2Error { static code = 'version_mismatch' }
class RateLimited extends Plan2Error { static code = 'rate_limited' }
class Unavailable extends Plan2Error { static code = 'unavailable' }
class EngineUnavailable extends Unavailable { static code = 'engine_unavailable' }
class BreakerOpen extends Unavailable { static code = 'breaker_open' }
class BulkheadFull extends Unavailable { static code = 'bulkhead_full' }
class StoreFull extends Unavailable { static code = 'store_full' }
class EngineAuthFailed extends Unavailable { static code = 'engine_auth_failed' }
class SchemaOutdated extends Unavailable { static code = 'schema_outdated' }
class DeadlineExceeded extends Plan2Error { static code = 'deadline_exceeded' }
class OperationFailed extends Plan2Error { static code = 'operation_failed' }
class CompensationFailed extends OperationFailed { static code = 'compensation_failed' }
class OutcomeUnknown extends Plan2Error { static code = 'outcome_unknown' }
class Internal extends Plan2Error { static code = 'internal' }
class SidecarUnreachable extends Plan2Error { static code = 'sidecar_unreachable' }
class ConnectionLost extends Plan2Error { static code = 'connection_lost' }
class StreamCut extends ConnectionLost { static code = 'stream_cut' }

const CLASSES = {
  Plan2Error,
  InvalidRequest,
  NotFound,
  AmbiguousRoute,
  EngineNotConfigured,
  NotAtomic,
  NotIdempotent,
  Unauthorized,
  QueryRejected,
  ReadOnly,
  PermissionDenied,
  Conflict,
  IdempotencyConflict,
  VersionMismatch,
  RateLimited,
  Unavailable,
  EngineUnavailable,
  BreakerOpen,
  BulkheadFull,
  StoreFull,
  EngineAuthFailed,
  SchemaOutdated,
  DeadlineExceeded,
  OperationFailed,
  CompensationFailed,
  OutcomeUnknown,
  Internal,
  SidecarUnreachable,
  ConnectionLost,
  StreamCut
}

const BY_CODE = new Map(Object.values(CLASSES).map((kind) => [kind.code, kind]))
const BY_STATUS = new Map([
  [401, Unauthorized],
  [404, NotFound],
  [409, Conflict],
  [412, VersionMismatch],
  [424, OperationFailed],
  [429, RateLimited],
  [500, Internal],
  [503, Unavailable],
  [504, DeadlineExceeded]
])

/** The error that an answer of 400 and above, or a `$error` line, stands for. */
function fromAnswer (status, document) {
  const said = document !== null && typeof document === 'object' ? document : {}
  const fallback = status >= 400 && status < 500 ? InvalidRequest : Plan2Error
  const Kind = BY_CODE.get(said.code) ?? BY_STATUS.get(status) ?? fallback
  const detail = said.detail ?? said.title ?? `the sidecar answered ${status}`
  return new Kind(detail, { ...said, status, code: said.code ?? `http_${status}` })
}

module.exports = { ...CLASSES, CLASSES, fromAnswer }
