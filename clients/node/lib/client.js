'use strict'
/**
 * `Client`: every call of the API as a method. Each takes a last object of options, where
 * `timeoutMs` is the call's own deadline and `signal` an AbortSignal.
 */
const { randomUUID } = require('node:crypto')
const { setTimeout: sleep } = require('node:timers/promises')
const errors = require('./errors.js')
const { Rows } = require('./rows.js')
const { LONGEST_TIMEOUT_MS, Transport } = require('./transport.js')

const READY_EVERY_MS = 100

/** The sidecar of this pod; everything is found in the environment unless given. */
class Client {
  constructor (options = {}) {
    this._transport = new Transport(options)
    this.cache = new Cache(this._transport)
    this.sessions = new Sessions(this._transport)
    this.config = new Config(this._transport)
    this.rateLimit = new RateLimits(this._transport)
    this.analytics = new Analytics(this._transport)
    this.registry = new Registry(this._transport)
    this.routes = new Routes(this._transport)
  }

  async query (query, options = {}) {
    return documentOf(this._transport, 'POST', '/api/v2/query', options, statement(query, options))
  }

  stream (query, options = {}) {
    return new Rows(this._transport.pieces({
      method: 'POST',
      path: '/api/v2/query',
      body: statement(query, options),
      headers: { Accept: 'application/x-ndjson' },
      timeoutMs: options.timeoutMs ?? LONGEST_TIMEOUT_MS,
      signal: options.signal
    }))
  }

  async route (query, options = {}) {
    return documentOf(this._transport, 'POST', '/api/v2/route', options, statement(query, options))
  }

  async batch (queries, options = {}) {
    const body = { queries: queries.map((one) => statement(one.query, one)) }
    const { results } = await documentOf(this._transport, 'POST', '/api/v2/batch', options, body)
    return results.map(({ status, problem, ...result }) =>
      problem === undefined ? result : errors.fromAnswer(status, problem))
  }

  async crossDb (operations, options = {}) {
    const { mode, idempotencyKey = mode === 'read' ? undefined : randomUUID() } = options
    const headers = idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }
    const body = { mode, operations: operations.map(operation) }
    return documentOf(this._transport, 'POST', '/api/v2/cross-db', options, body, headers)
  }

  async crossDbGet (idOrKey, options = {}) {
    return orNull(documentOf(this._transport, 'GET', `/api/v2/cross-db/${part(idOrKey)}`, options))
  }

  async databases (options = {}) {
    return (await documentOf(this._transport, 'GET', '/api/v2/databases', options)).engines
  }

  async health (options = {}) {
    return documentOf(this._transport, 'GET', '/api/v2/health/all', options)
  }

  async ready (timeoutMs = 30000) {
    const until = Date.now() + timeoutMs
    for (;;) {
      try {
        await call(this._transport, 'GET', '/readyz', { timeoutMs: 1000 })
        return
      } catch (error) {
        if (!isTransient(error) || Date.now() > until) throw error
        await sleep(READY_EVERY_MS)
      }
    }
  }

  close () {
    this._transport.close()
  }
}

class Part {
  constructor (transport) {
    this._transport = transport
  }
}

class Cache extends Part {
  async get (key, options = {}) {
    return entry(this._transport, `/api/v2/cache/${part(key)}`, options, namespace(options))
  }

  async put (key, value, options = {}) {
    const body = { value, ttl: options.ttl }
    const path = `/api/v2/cache/${part(key)}`
    return written(this._transport, 'PUT', path, options, body, namespace(options))
  }

  async delete (key, options = {}) {
    const path = `/api/v2/cache/${part(key)}`
    return written(this._transport, 'DELETE', path, options, undefined, namespace(options))
  }
}

class Sessions extends Part {
  async store (id, data, options = {}) {
    const body = { data, ttl: options.ttl, durable: options.durable }
    return written(this._transport, 'PUT', `/api/v2/sessions/${part(id)}`, options, body)
  }

  async get (id, options = {}) {
    return entry(this._transport, `/api/v2/sessions/${part(id)}`, options)
  }

  async delete (id, options = {}) {
    return written(this._transport, 'DELETE', `/api/v2/sessions/${part(id)}`, options)
  }
}

class Config extends Part {
  async get (user, key, options = {}) {
    return entry(this._transport, configPath(user, key), options)
  }

  async put (user, key, value, options = {}) {
    const path = configPath(user, key)
    const headers = preconditions(options)
    return (await documentOf(this._transport, 'PUT', path, options, { value }, headers)).version
  }

  async delete (user, key, options = {}) {
    const path = configPath(user, key)
    return written(this._transport, 'DELETE', path, options, undefined, preconditions(options))
  }

  async history (user, key, options = {}) {
    const { limit, cursor } = options
    const path = withQuery(`${configPath(user, key)}/history`, { limit, cursor })
    return documentOf(this._transport, 'GET', path, options)
  }

  async cache (user, key, value, options = {}) {
    const body = { value, ttl: options.ttl }
    return written(this._transport, 'PUT', `${configPath(user, key)}/cache`, options, body)
  }

  async logChange (user, key, oldValue, newValue, options = {}) {
    const body = { oldValue: oldValue ?? null, newValue: newValue ?? null }
    const path = `${configPath(user, key)}/changes`
    await call(this._transport, 'POST', path, options, body, preconditions(options))
  }
}

class RateLimits extends Part {
  async check (clientId, options = {}) {
    const { windowMs = 900000, limit = 100 } = options
    const { cost, algorithm, exact, peek, onStoreFailure } = options
    const body = { clientId, windowMs, limit, cost, algorithm, exact, peek, onStoreFailure }
    const path = '/api/v2/rate-limit/check'
    const answer = await call(this._transport, 'POST', path, options, body)
    const resetTime = new Date(Date.now() + answer.document.resetMs)
    return { ...answer.document, resetTime, headers: handedOn(answer.headers) }
  }

  async reset (clientId, options = {}) {
    return written(this._transport, 'DELETE', `/api/v2/rate-limit/${part(clientId)}`, options)
  }
}

class Analytics extends Part {
  async log (requests, options = {}) {
    const path = '/api/v2/analytics/requests'
    return (await documentOf(this._transport, 'POST', path, options, requests)).accepted
  }

  async summary (options = {}) {
    const { since, groupBy, limit, cursor } = options
    const path = withQuery('/api/v2/analytics/requests', { since, groupBy, limit, cursor })
    return documentOf(this._transport, 'GET', path, options)
  }
}

class Registry extends Part {
  async register (name, instance, url, options = {}) {
    const body = { url, metadata: options.metadata, ttl: options.ttl }
    return written(this._transport, 'PUT', servicePath(name, instance), options, body)
  }

  async heartbeat (name, instance, url, options = {}) {
    return this.register(name, instance, url, options)
  }

  async get (name, options = {}) {
    const path = `/api/v2/registry/services/${part(name)}`
    return orNull(documentOf(this._transport, 'GET', path, options))
  }

  async list (options = {}) {
    const { limit, cursor } = options
    const path = withQuery('/api/v2/registry/services', { limit, cursor })
    return documentOf(this._transport, 'GET', path, options)
  }

  async remove (name, instance, options = {}) {
    return written(this._transport, 'DELETE', servicePath(name, instance), options)
  }
}

class Routes extends Part {
  async put (route, target, options = {}) {
    const body = { target, ttl: options.ttl }
    return written(this._transport, 'PUT', routePath(route), options, body)
  }

  async get (route, options = {}) {
    const found = await orNull(documentOf(this._transport, 'GET', routePath(route), options))
    return found === null ? null : found.target
  }

  async delete (route, options = {}) {
    return written(this._transport, 'DELETE', routePath(route), options)
  }
}

async function call (transport, method, path, options, body, headers) {
  const { timeoutMs, signal } = options
  return transport.send({ method, path, body, headers, timeoutMs, signal })
}

async function documentOf (...members) {
  return (await call(...members)).document
}

async function written (...members) {
  return provenance((await call(...members)).headers)
}

async function entry (transport, path, options, headers) {
  const answer = await orNull(call(transport, 'GET', path, options, undefined, headers))
  return answer === null ? null : { ...provenance(answer.headers), ...answer.document }
}

async function orNull (asked) {
  try {
    return await asked
  } catch (error) {
    if (error instanceof errors.NotFound) return null
    throw error
  }
}

function statement (query, options) {
  const { params, targetDatabase, operation, readOnly, cacheTtlMs, maxRows } = options
  const cache = cacheTtlMs === undefined ? undefined : { ttlMs: cacheTtlMs }
  const given = [readOnly, cache, maxRows].some((option) => option !== undefined)
  const chosen = given ? { readOnly, cache, maxRows } : undefined
  return { query, params, targetDatabase, operation, options: chosen }
}

function operation ({ compensate, ...members }) {
  return compensate === undefined
    ? members
    : { ...members, compensate: statement(compensate.query, compensate) }
}

function provenance (headers) {
  return {
    source: headers['plan2-source'],
    degraded: headers['plan2-degraded'] === 'true',
    fallbackFrom: headers['plan2-fallback-from']
  }
}

function handedOn (headers) {
  const names = ['RateLimit-Policy', 'RateLimit', 'Retry-After']
  const present = names.filter((name) => headers[name.toLowerCase()] !== undefined)
  return Object.fromEntries(present.map((name) => [name, headers[name.toLowerCase()]]))
}

function namespace (options) {
  return options.namespace === undefined ? {} : { 'Plan2-Namespace': options.namespace }
}

function preconditions ({ ifMatch, createOnly, actor }) {
  const headers = {}
  if (ifMatch !== undefined) headers['If-Match'] = `"${ifMatch}"`
  if (createOnly) headers['If-None-Match'] = '*'
  if (actor !== undefined) headers['Plan2-Actor'] = actor
  return headers
}

/** A name as one segment of a path. */
function part (name) {
  if (name === undefined || name === null || name === '') throw new TypeError('the name is empty')
  // A path with a dot segment is another path.
  return /^\.\.?$/.test(name) ? name.replaceAll('.', '%2E') : encodeURIComponent(name)
}

function configPath (user, key) {
  return `/api/v2/config/${part(user)}/${part(key)}`
}

function servicePath (name, instance) {
  return `/api/v2/registry/services/${part(name)}/${part(instance)}`
}

function routePath (route) {
  return `/api/v2/registry/routes/${part(route)}`
}

function withQuery (path, members) {
  const given = Object.entries(members).filter(([, value]) => value !== undefined)
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`
}

function isTransient (error) {
  return [
    errors.SidecarUnreachable, errors.ConnectionLost, errors.Unavailable, errors.DeadlineExceeded
  ].some((kind) => error instanceof kind)
}

module.exports = { Client }
