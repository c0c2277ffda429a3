/** How a client is made; whatever is missing is found in the environment. */
export interface ClientOptions {
  /** Default `PLAN2_URL`, else http://127.0.0.1:7420. */
  url?: string
  /** Default `PLAN2_SOCKET`; goes before the URL. */
  socketPath?: string
  /** Default `PLAN2_API_TOKEN`, else the first line of `PLAN2_API_TOKEN_FILE`. */
  token?: string
  /** The deadline of every call that has none of its own, 1 to 60000; 5000. */
  timeoutMs?: number
  /** Connections at once; 100. */
  maxSockets?: number
  environ?: Record<string, string | undefined>
}

export interface CallOptions {
  /** This call's deadline, 1 to 60000. */
  timeoutMs?: number
  /** Aborting ends the call, and its work on the engine. */
  signal?: AbortSignal
}

export type Params = readonly unknown[] | Readonly<Record<string, unknown>>
export type Engine =
  | 'postgresql' | 'clickhouse' | 'arangodb' | 'dragonflydb' | 'redis' | 'weaviate' | 'mongodb'
  | 'postgres' | 'arango' | 'dragonfly' | 'mongo'
export type OperationKind =
  | 'cache' | 'session' | 'vector' | 'graph' | 'analytics' | 'document' | 'relational'

export interface StatementOptions {
  params?: Params
  targetDatabase?: Engine
  operation?: OperationKind
  readOnly?: boolean
  maxRows?: number
}

export interface QueryOptions extends StatementOptions {
  /** How long the answer may be kept. */
  cacheTtlMs?: number
}

/** SQL, AQL, GraphQL, a Redis command (also as a list), or an object for MongoDB and Weaviate. */
export type Query = string | readonly unknown[] | object

export interface Meta {
  database: string
  route: string
  cache: 'hit' | 'miss' | 'stale' | 'off'
  degraded: boolean
  fallbackFrom?: string
  attempts: number
  tookUs: number
  truncated?: boolean
}

/**
 * `data` as the engine's kind of answer has it. Integers beyond 2^53 are BigInt, decimals that a
 * number cannot hold are strings.
 */
export interface QueryResult<Data = any> {
  data: Data
  rowCount: number
  meta: Meta
  upsertedId?: unknown
}

export interface Route {
  database: string
  route: string
  write: boolean
  candidates: string[]
  reason: string
}

export interface Statement extends QueryOptions {
  query: Query
}

export interface Operation {
  id: string
  query: Query
  params?: Params
  targetDatabase?: Engine
  dependsOn?: string[]
  compensate?: Statement
  idempotent?: boolean
}

export interface CrossDbOptions extends CallOptions {
  mode?: 'read' | 'outbox' | 'saga' | 'atomic'
  /** Made up where it is missing, except for reads. */
  idempotencyKey?: string
}

export interface CrossDbResult {
  id: string
  mode: string
  state: 'running' | 'committed' | 'compensating' | 'compensated' | 'failed' | 'dead'
  operations: Array<Record<string, any>>
}

/** Where an answer of data came from. */
export interface Provenance {
  source?: string
  degraded: boolean
  fallbackFrom?: string
}

export interface CacheEntry<Value = any> extends Provenance {
  value: Value
  /** Seconds left, null without an end. */
  ttl: number | null
}

export interface Session<Data = any> extends Provenance {
  id: string
  data: Data
  ttl: number
}

export interface ConfigEntry<Value = any> extends Provenance {
  value: Value
  /** null for a value that only the cache has. */
  version: number | null
}

export interface Page<Item = Record<string, any>> {
  items: Item[]
  next?: string | null
}

export interface RateLimit {
  allowed: boolean
  limit: number
  remaining: number
  totalHits: number
  resetMs: number
  resetTime: Date
  retryAfterMs?: number
  source: 'lease' | 'store' | 'deny_cache' | 'fallback'
  degraded: boolean
  /** To hand on: RateLimit, RateLimit-Policy, Retry-After. */
  headers: Record<string, string>
}

export interface RateLimitOptions {
  /** 900000. */
  windowMs?: number
  /** 100. */
  limit?: number
  algorithm?: 'fixed-window' | 'sliding-window' | 'gcra'
  exact?: boolean
  onStoreFailure?: 'local' | 'open' | 'closed'
}

export interface Service {
  name: string
  instances: Array<Record<string, any>>
}

export interface PageOptions extends CallOptions {
  limit?: number
  cursor?: string
}

export interface NamespaceOptions extends CallOptions {
  namespace?: string
}

export interface ConfigWriteOptions extends CallOptions {
  /** Rejects with VersionMismatch where the value no longer has this version. */
  ifMatch?: number
  /** Who did it, else the pod's service account. */
  actor?: string
}

/** The rows of a stream. Leaving the loop early ends it. */
export interface Rows<Row = any> extends AsyncIterable<Row> {
  /** Known after the last row. */
  readonly end: { rowCount: number, meta: Meta } | undefined
  [Symbol.asyncIterator](): AsyncIterator<Row, undefined>
  close(): Promise<void>
}

/** The sidecar of this pod. */
export class Client {
  constructor(options?: ClientOptions)
  query<Data = any>(query: Query, options?: QueryOptions & CallOptions): Promise<QueryResult<Data>>
  /** The rows as they come, however many; the deadline, 60000, covers all of them. */
  stream<Row = any>(query: Query, options?: StatementOptions & CallOptions): Rows<Row>
  /** Where `query()` would go and why; nothing is run. */
  route(query: Query, options?: StatementOptions & CallOptions): Promise<Route>
  /** At most 100 at once, answered in their order; one that failed is its error. */
  batch(queries: readonly Statement[], options?: CallOptions): Promise<Array<QueryResult | Plan2Error>>
  /** Where `state` is running, ask `crossDbGet(id)` later. */
  crossDb(operations: readonly Operation[], options?: CrossDbOptions): Promise<CrossDbResult>
  crossDbGet(idOrKey: string, options?: CallOptions): Promise<CrossDbResult | null>
  databases(options?: CallOptions): Promise<Record<string, any>>
  health(options?: CallOptions): Promise<Record<string, any>>
  /** Wait until the sidecar serves. */
  ready(timeoutMs?: number): Promise<void>
  /** Close the connections. */
  close(): void
  readonly cache: {
    get<Value = any>(key: string, options?: NamespaceOptions): Promise<CacheEntry<Value> | null>
    put(key: string, value: unknown, options?: NamespaceOptions & { ttl?: number }): Promise<Provenance>
    delete(key: string, options?: NamespaceOptions): Promise<Provenance>
  }
  readonly sessions: {
    store(id: string, data: unknown, options?: CallOptions & { ttl?: number, durable?: boolean }): Promise<Provenance>
    get<Data = any>(id: string, options?: CallOptions): Promise<Session<Data> | null>
    delete(id: string, options?: CallOptions): Promise<Provenance>
  }
  readonly config: {
    get<Value = any>(user: string, key: string, options?: CallOptions): Promise<ConfigEntry<Value> | null>
    /** The new version. */
    put(user: string, key: string, value: unknown, options?: ConfigWriteOptions & { createOnly?: boolean }): Promise<number>
    delete(user: string, key: string, options?: ConfigWriteOptions): Promise<Provenance>
    /** Newest first: version, oldValue, newValue, actor, at. */
    history(user: string, key: string, options?: PageOptions): Promise<Page>
    /** What `get()` says for `ttl` seconds; PostgreSQL is not touched. */
    cache(user: string, key: string, value: unknown, options?: CallOptions & { ttl?: number }): Promise<Provenance>
    logChange(user: string, key: string, oldValue: unknown, newValue: unknown, options?: CallOptions & { actor?: string }): Promise<void>
  }
  readonly rateLimit: {
    /** Nothing is thrown for a denial: look at `allowed`. */
    check(clientId: string, options?: RateLimitOptions & CallOptions & { cost?: number, peek?: boolean }): Promise<RateLimit>
    reset(clientId: string, options?: CallOptions): Promise<Provenance>
  }
  readonly analytics: {
    /** The number taken. */
    log(requests: object | readonly object[], options?: CallOptions): Promise<number>
    summary(options?: PageOptions & { since?: string, groupBy?: 'path' | 'method' | 'status' | 'clientId' }): Promise<Page>
  }
  readonly registry: {
    register(name: string, instance: string, url: string, options?: CallOptions & { metadata?: object, ttl?: number }): Promise<Provenance>
    heartbeat(name: string, instance: string, url: string, options?: CallOptions & { metadata?: object, ttl?: number }): Promise<Provenance>
    get(name: string, options?: CallOptions): Promise<Service | null>
    list(options?: PageOptions): Promise<Page>
    remove(name: string, instance: string, options?: CallOptions): Promise<Provenance>
  }
  readonly routes: {
    put(route: string, target: unknown, options?: CallOptions & { ttl?: number }): Promise<Provenance>
    get<Target = any>(route: string, options?: CallOptions): Promise<Target | null>
    delete(route: string, options?: CallOptions): Promise<Provenance>
  }
}

declare class DatabaseConfig {
  readonly client: Client
  constructor(options?: ClientOptions & { client?: Client })
  /** Wait until the sidecar serves. */
  initialize(timeoutMs?: number): Promise<void>
  healthCheck(): Promise<Record<string, any>>
  close(): Promise<void>
}

/** What the configuration service calls. */
export class ConfigServiceDatabaseConfig extends DatabaseConfig {
  /** The new version. */
  storeConfig(user: string, key: string, data: unknown): Promise<number>
  /** The value, null when there is none. */
  getConfig<Value = any>(user: string, key: string): Promise<Value | null>
  deleteConfig(user: string, key: string): Promise<void>
  cacheConfig(user: string, key: string, data: unknown, ttl?: number): Promise<Provenance>
  logConfigChange(user: string, key: string, oldValue: unknown, newValue: unknown): Promise<void>
  getConfigHistory(user: string, key: string, limit?: number): Promise<Page>
}

/** What the API gateway calls. */
export class ApiGatewayDatabaseConfig extends DatabaseConfig {
  storeSession(id: string, data: unknown, ttl?: number): Promise<Provenance>
  /** The session's data, null when there is none. */
  getSession<Data = any>(id: string): Promise<Data | null>
  deleteSession(id: string): Promise<void>
  checkRateLimit(clientId: string, windowMs?: number, limit?: number): Promise<RateLimit>
  /** The number taken. */
  logApiRequest(data: object | readonly object[]): Promise<number>
}

export interface RateLimitStoreOptions extends ClientOptions {
  /** To share one; the store does not close it. */
  client?: Client
  /** Before each key; `express:`. */
  prefix?: string
  /** express-rate-limit's own, unless given. */
  windowMs?: number
  /** express-rate-limit's own, unless given; needed where that is a function. */
  limit?: number
  algorithm?: 'fixed-window' | 'sliding-window' | 'gcra'
  exact?: boolean
  onStoreFailure?: 'local' | 'open' | 'closed'
}

/** A store for express-rate-limit. */
export class Plan2RateLimitStore {
  constructor(options?: RateLimitStoreOptions)
  readonly localKeys: boolean
  readonly prefix: string
  init(options: { windowMs: number, limit?: unknown, skipFailedRequests?: boolean, skipSuccessfulRequests?: boolean }): void
  increment(key: string): Promise<{ totalHits: number, resetTime: Date }>
  get(key: string): Promise<{ totalHits: number, resetTime: Date }>
  decrement(key: string): Promise<void>
  resetKey(key: string): Promise<void>
  shutdown(): void
}

export function plan2RateLimitStore(options?: RateLimitStoreOptions): Plan2RateLimitStore

/** What every call rejects with; the subclasses say what the caller can do. */
export class Plan2Error extends Error {
  static readonly code: string
  readonly code: string
  /** 0 where there was no answer. */
  readonly status: number
  readonly detail: string
  readonly title: string
  readonly database?: string
  /** true only where the sidecar says that the same call may be sent again. */
  readonly retryable: boolean
  readonly retryAfterMs?: number
  readonly engineCode?: string
  /** The whole problem document. */
  readonly members: Record<string, any>
}

export class InvalidRequest extends Plan2Error {}
export class NotFound extends InvalidRequest {}
export class AmbiguousRoute extends InvalidRequest {}
export class EngineNotConfigured extends InvalidRequest {}
export class NotAtomic extends InvalidRequest {}
export class NotIdempotent extends InvalidRequest {}
export class Unauthorized extends Plan2Error {}
export class QueryRejected extends Plan2Error {}
export class ReadOnly extends QueryRejected {}
export class PermissionDenied extends QueryRejected {}
export class Conflict extends QueryRejected {}
export class IdempotencyConflict extends Plan2Error {}
export class VersionMismatch extends Plan2Error {}
export class RateLimited extends Plan2Error {}
export class Unavailable extends Plan2Error {}
export class EngineUnavailable extends Unavailable {}
export class BreakerOpen extends Unavailable {}
export class BulkheadFull extends Unavailable {}
export class StoreFull extends Unavailable {}
export class EngineAuthFailed extends Unavailable {}
export class SchemaOutdated extends Unavailable {}
export class DeadlineExceeded extends Plan2Error {}
export class OperationFailed extends Plan2Error {}
export class CompensationFailed extends OperationFailed {}
export class OutcomeUnknown extends Plan2Error {}
export class Internal extends Plan2Error {}
export class SidecarUnreachable extends Plan2Error {}
export class ConnectionLost extends Plan2Error {}
export class StreamCut extends ConnectionLost {}
