'use strict'
/**
 * An API gateway: sessions, rate limits that hold over all its replicas, routes to live services.
 *
 * It keeps nothing itself: any replica knows every session, the limit is one number, and services
 * come and go in the registry. Each request that was served is handed over for analytics.
 */
const http = require('node:http')
const { randomUUID } = require('node:crypto')
const { ApiGatewayDatabaseConfig, Plan2Error } = require('@plan2/client')

const PORT = Number(process.env.PORT ?? 8080)
const SESSION_SECONDS = 3600
const WINDOW_MS = Number(process.env.RATE_WINDOW_MS ?? 15 * 60 * 1000)
const LIMIT = Number(process.env.RATE_LIMIT ?? 100)
const database = new ApiGatewayDatabaseConfig()
let turn = 0

async function handle (request) {
  const { pathname } = new URL(request.url, 'http://gateway')
  if (pathname === '/healthz') return [200, await database.healthCheck()]
  const session = await sessionOf(request)
  const client = session?.user ?? `ip:${request.socket.remoteAddress}`
  const limit = await database.checkRateLimit(client, WINDOW_MS, LIMIT)
  // The limit's own headers are handed on: how much is left, and when to come back.
  if (!limit.allowed) return [429, { error: 'too many requests' }, limit.headers]
  const [status, body, headers] = await route(request, pathname, session)
  return [status, body, { ...limit.headers, ...headers }]
}

async function route (request, pathname, session) {
  if (pathname === '/sessions' && request.method === 'POST') return login(request)
  if (session === null) return [401, { error: 'no session' }]
  if (pathname === '/sessions' && request.method === 'DELETE') return logout(session)
  const [, service, rest] = /^\/([a-z0-9-]+)(\/.*)?$/.exec(pathname) ?? []
  return service === undefined ? [404, { error: 'no such path' }] : forward(service, rest, session)
}

/** Who the user is was found out before: the example takes their word. */
async function login (request) {
  const { user } = JSON.parse(await textOf(request))
  const id = randomUUID()
  await database.storeSession(id, { user }, SESSION_SECONDS)
  return [201, { token: id }]
}

async function logout (session) {
  await database.deleteSession(session.id)
  return [204]
}

async function sessionOf (request) {
  const [, id] = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '') ?? []
  if (id === undefined) return null
  const data = await database.getSession(id)
  return data === null ? null : { ...data, id }
}

/** To one of the instances that sent a heartbeat lately, each in its turn. */
async function forward (service, rest, session) {
  const found = await database.client.registry.get(service)
  if (found === null) return [503, { error: `no instance of ${service}` }, { 'Retry-After': 1 }]
  const instance = found.instances[turn++ % found.instances.length]
  const response = await fetch(new URL(rest ?? '/', instance.url), {
    headers: { 'X-User': session.user },
    signal: AbortSignal.timeout(5000)
  })
  return [response.status, await response.json()]
}

async function textOf (request) {
  const pieces = []
  for await (const piece of request) pieces.push(piece)
  return Buffer.concat(pieces).toString()
}

async function answer (request, response) {
  const started = performance.now()
  const [status, body, headers] = await handle(request).catch(problem)
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' }
  response.writeHead(status, { ...json, ...headers })
  response.end(body === undefined ? undefined : JSON.stringify(body))
  await database.logApiRequest({
    method: request.method,
    path: new URL(request.url, 'http://gateway').pathname,
    status,
    durationMs: Math.round(performance.now() - started),
    clientId: request.socket.remoteAddress
  })
}

function problem (error) {
  if (error instanceof SyntaxError) return [400, { error: 'the body is not JSON' }]
  if (error instanceof Plan2Error) return [503, { error: error.code }, { 'Retry-After': 1 }]
  return [502, { error: 'the service did not answer' }]
}

async function main () {
  await database.initialize()
  const server = http.createServer((request, response) => {
    // What was served stays served when the log cannot be written.
    answer(request, response).catch((error) => console.error(`${error}`))
  })
  server.listen(PORT, () => console.log(`listening on ${server.address().port}`))
  process.once('SIGTERM', () => server.close(() => database.close()))
}

main()
