'use strict'
/**
 * A configuration service: users' settings with versions, a history, and previews that pass.
 *
 * PostgreSQL has the settings, Dragonfly serves them, ClickHouse keeps who changed what; this
 * file knows none of the three. Its data access was a class of its own over three drivers; the
 * one line that changed is the import.
 */
const http = require('node:http')
const { ConfigServiceDatabaseConfig, VersionMismatch, Plan2Error } = require('@plan2/client')

const PORT = Number(process.env.PORT ?? 8080)
const PREVIEW_SECONDS = 60
const database = new ConfigServiceDatabaseConfig()

const routes = [
  ['GET', /^\/users\/([^/]+)\/settings\/([^/]+)$/, read],
  ['PUT', /^\/users\/([^/]+)\/settings\/([^/]+)$/, write],
  ['DELETE', /^\/users\/([^/]+)\/settings\/([^/]+)$/, remove],
  ['PUT', /^\/users\/([^/]+)\/settings\/([^/]+)\/preview$/, preview],
  ['POST', /^\/users\/([^/]+)\/settings\/([^/]+)\/imported-change$/, imported],
  ['GET', /^\/users\/([^/]+)\/settings\/([^/]+)\/history$/, history],
  ['GET', /^\/healthz$/, health]
]

async function read (_request, user, key) {
  const found = await database.client.config.get(user, key)
  if (found === null) return [404, { error: 'no such setting' }]
  const { value, version, degraded } = found
  return [200, { value, version, degraded }, version === null ? {} : { ETag: `"${version}"` }]
}

/** With `If-Match`, only if nobody wrote since; each change is in the history with its actor. */
async function write (request, user, key) {
  const { value } = await bodyOf(request)
  const [, ifMatch] = /^"(\d+)"$/.exec(request.headers['if-match'] ?? '') ?? []
  const actor = request.headers['x-user'] ?? 'anonymous'
  const version = await database.client.config.put(user, key, value, { ifMatch, actor })
  return [200, { version }, { ETag: `"${version}"` }]
}

async function remove (_request, user, key) {
  await database.deleteConfig(user, key)
  return [204]
}

/** A value that everybody sees for a minute, and that PostgreSQL never has. */
async function preview (request, user, key) {
  const { value } = await bodyOf(request)
  await database.cacheConfig(user, key, value, PREVIEW_SECONDS)
  return [202, { seconds: PREVIEW_SECONDS }]
}

/** A change that was made in the system before this one. */
async function imported (request, user, key) {
  const { oldValue, newValue } = await bodyOf(request)
  await database.logConfigChange(user, key, oldValue, newValue)
  return [202, {}]
}

async function history (_request, user, key) {
  return [200, await database.getConfigHistory(user, key, 20)]
}

async function health () {
  const { status } = await database.healthCheck()
  return [status === 'down' ? 503 : 200, { status }]
}

async function bodyOf (request) {
  const pieces = []
  for await (const piece of request) pieces.push(piece)
  return JSON.parse(Buffer.concat(pieces).toString())
}

async function answer (request, response) {
  const path = new URL(request.url, 'http://service').pathname
  const [status, body, headers] = await dispatch(request, path).catch(problem)
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' }
  response.writeHead(status, { ...json, ...headers })
  response.end(body === undefined ? undefined : JSON.stringify(body))
}

async function dispatch (request, path) {
  for (const [method, pattern, handler] of routes) {
    const match = pattern.exec(path)
    if (match && method === request.method) {
      return handler(request, ...match.slice(1).map(decodeURIComponent))
    }
  }
  return [404, { error: 'no such path' }]
}

function problem (error) {
  if (error instanceof VersionMismatch) return [412, { error: 'somebody wrote in between' }]
  if (error instanceof SyntaxError) return [400, { error: 'the body is not JSON' }]
  if (!(error instanceof Plan2Error)) throw error
  const retry = error.retryAfterMs ? { 'Retry-After': Math.ceil(error.retryAfterMs / 1000) } : {}
  return [error.status >= 500 || error.status === 0 ? 503 : 400, { error: error.code }, retry]
}

async function main () {
  await database.initialize()
  const server = http.createServer((request, response) => {
    answer(request, response).catch((error) => response.destroy(error))
  })
  server.listen(PORT, () => console.log(`listening on ${server.address().port}`))
  process.once('SIGTERM', () => server.close(() => database.close()))
}

main()
