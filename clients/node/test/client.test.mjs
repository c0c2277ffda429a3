import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { fake, problem } from './fake.mjs'
import {
  AmbiguousRoute, Client, Conflict, ConnectionLost, OperationFailed, DeadlineExceeded,
  EngineUnavailable, InvalidRequest, Plan2Error, RateLimited, SidecarUnreachable, StreamCut,
  Unauthorized, Unavailable, VersionMismatch
} from '../index.mjs'

const META = { database: 'postgresql', route: 'target', cache: 'off', degraded: false, attempts: 1, tookUs: 9 }
const ROWS = { data: [{ id: 1 }], rowCount: 1, meta: META }

function made (context, options) {
  const client = new Client({ environ: {}, ...options })
  context.after(() => client.close())
  return client
}

test('a query is sent as the API takes it', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: ROWS }))
  const client = made(t, { url, token: 'secret' })

  const result = await client.query('SELECT $1', {
    params: [42n], targetDatabase: 'postgresql', readOnly: true, cacheTtlMs: 50, maxRows: 5, timeoutMs: 1200
  })

  assert.deepEqual(result, ROWS)
  const [{ method, path, headers, text }] = asked
  assert.equal(`${method} ${path}`, 'POST /api/v2/query')
  assert.deepEqual(JSON.parse(text), {
    query: 'SELECT $1',
    params: [42],
    targetDatabase: 'postgresql',
    options: { readOnly: true, cache: { ttlMs: 50 }, maxRows: 5 }
  })
  assert.equal(headers.authorization, 'Bearer secret')
  assert.equal(headers['x-deadline-ms'], '1200')
  assert.equal(headers['content-type'], 'application/json')
})

test('a call without a deadline of its own has five seconds', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: ROWS }))

  await made(t, { url }).query('SELECT 1')

  assert.equal(asked[0].headers['x-deadline-ms'], '5000')
  assert.deepEqual(asked[0].body, { query: 'SELECT 1' })
  assert.equal(asked[0].headers.authorization, undefined)
})

test('calls one after another share a connection', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: ROWS }))
  const client = made(t, { url })

  for (let n = 0; n < 5; n++) await client.query('SELECT 1')

  assert.equal(new Set(asked.map(({ socket }) => socket)).size, 1)
})

test('a connection that the sidecar closed meanwhile is not used', async (t) => {
  const { url, asked, server } = await fake(t, () => ({ body: ROWS }))
  const client = made(t, { url })

  await client.query('SELECT 1')
  server.closeIdleConnections()
  await new Promise((resolve) => setTimeout(resolve, 50))
  await client.query('SELECT 1')

  assert.equal(asked.length, 2)
})

test('the socket of the environment goes before its URL', async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'plan2-'))
  t.after(() => fs.rm(folder, { recursive: true }))
  const socketPath = path.join(folder, 'api.sock')
  const { asked } = await fake(t, () => ({ body: ROWS }), socketPath)
  const client = made(t, { environ: { PLAN2_SOCKET: socketPath, PLAN2_URL: 'http://127.0.0.1:1' } })

  await client.query('SELECT 1')

  assert.equal(asked[0].headers.host, 'localhost')
})

test('the URL is taken while nothing is at the socket', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: ROWS }))
  const client = made(t, { environ: { PLAN2_SOCKET: '/nowhere/api.sock', PLAN2_URL: url } })

  await client.query('SELECT 1')

  assert.equal(asked.length, 1)
})

test('a URL of no use is refused at once', () => {
  for (const url of ['https://127.0.0.1:7420', 'http://', '127.0.0.1:7420', 'http://a/api']) {
    assert.throws(() => new Client({ url, environ: {} }), TypeError)
  }
})

test('a token that rotated is read again, and the call sent once more', async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'plan2-'))
  t.after(() => fs.rm(folder, { recursive: true }))
  const file = path.join(folder, 'token')
  await fs.writeFile(file, 'old\n')
  let valid = 'old'
  const { url, asked } = await fake(t, ({ headers }) =>
    headers.authorization === `Bearer ${valid}` ? { body: ROWS } : problem(401, 'unauthorized'))
  const client = made(t, { url, environ: { PLAN2_API_TOKEN_FILE: file } })
  await client.query('SELECT 1')

  valid = 'new'
  await fs.writeFile(file, '\nnew\nold\n')
  await client.query('SELECT 2')

  assert.deepEqual(asked.map(({ headers }) => headers.authorization),
    ['Bearer old', 'Bearer old', 'Bearer new'])
  valid = 'other'
  await assert.rejects(client.query('SELECT 3'), Unauthorized)
  assert.equal(asked.length, 4)
})

const answers = [
  [422, 'ambiguous_route', AmbiguousRoute],
  [409, 'conflict', Conflict],
  [412, 'version_mismatch', VersionMismatch],
  [429, 'rate_limited', RateLimited],
  [503, 'engine_unavailable', EngineUnavailable],
  [504, 'deadline_exceeded', DeadlineExceeded],
  [424, 'something_new', OperationFailed],
  [503, 'something_new', Unavailable],
  [418, 'something_new', InvalidRequest],
  [599, 'something_new', Plan2Error]
]
for (const [status, code, Kind] of answers) {
  test(`${status} ${code} is ${Kind.name}`, async (t) => {
    const members = { database: 'postgresql', retryable: true, retryAfterMs: 70, engineCode: '40001' }
    const { url, asked } = await fake(t, () => problem(status, code, members))

    const error = await made(t, { url }).query('SELECT 1').catch((reason) => reason)

    assert.equal(error.constructor, Kind)
    assert.equal(error.name, Kind.name)
    assert.equal(error.message, `${code} on postgresql: said ${code}`)
    const { retryable, retryAfterMs, engineCode } = error
    assert.deepEqual({ status: error.status, code: error.code, retryable, retryAfterMs, engineCode },
      { status, code, retryable: true, retryAfterMs: 70, engineCode: '40001' })
    assert.equal(asked.length, 1)
  })
}

test('an error that is not JSON is still an error', async (t) => {
  const { url } = await fake(t, () => ({ status: 502, body: 'Bad Gateway' }))

  await assert.rejects(made(t, { url }).query('SELECT 1'), { status: 502, detail: 'Bad Gateway' })
})

test('nobody listening is told apart from an answer that broke off', async (t) => {
  const { url, asked } = await fake(t, ({ socket }) => { socket.destroy() })
  const client = made(t, { url })

  await assert.rejects(made(t, { url: 'http://127.0.0.1:1' }).query('SELECT 1'),
    (error) => error instanceof SidecarUnreachable && error.retryable)
  await assert.rejects(client.query('INSERT'),
    (error) => error instanceof ConnectionLost && !error.retryable)
  await assert.rejects(client.health(),
    (error) => error instanceof ConnectionLost && error.retryable)
  assert.equal(asked.length, 2)
})

test('an answer that does not come in time is DeadlineExceeded', async (t) => {
  const { url } = await fake(t, () => undefined)

  await assert.rejects(made(t, { url }).query('SELECT 1', { timeoutMs: 50 }),
    (error) => error instanceof DeadlineExceeded && error.status === 0)
})

test('a deadline out of range is refused before anything is sent', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: ROWS }))

  for (const timeoutMs of [0, -1, 60001, NaN]) {
    await assert.rejects(made(t, { url }).query('SELECT 1', { timeoutMs }), RangeError)
  }
  assert.equal(asked.length, 0)
})

test('aborting ends the call with the reason of the signal, and hangs up', async (t) => {
  const hungUp = []
  const { url } = await fake(t, ({ socket }) => { socket.on('close', () => hungUp.push(1)) })
  const client = made(t, { url })
  const abort = new AbortController()

  const call = client.query('SELECT pg_sleep(9)', { signal: abort.signal })
  setTimeout(() => abort.abort(), 50)

  await assert.rejects(call, { name: 'AbortError' })
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.deepEqual(hungUp, [1])
  await assert.rejects(client.query('SELECT 1', { signal: abort.signal }), { name: 'AbortError' })
})

function lines (...rows) {
  return { headers: { 'Content-Type': 'application/x-ndjson' }, body: rows.map((row) => JSON.stringify(row) + '\n').join('') }
}

async function all (rows) {
  const read = []
  for await (const row of rows) read.push(row)
  return read
}

test('a stream gives its rows and then how it ended', async (t) => {
  const end = { rowCount: 2, meta: META }
  const { url, asked } = await fake(t, ({ response }) => {
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
    // In pieces that end within a row, and within a character.
    const body = Buffer.from('{"name":"é","n":9007199254740993}\n{"$end":1}\n' + JSON.stringify({ $end: end }))
    let at = 0
    const more = () => {
      if (at >= body.length) return response.end()
      response.write(body.subarray(at, at += 10), () => setImmediate(more))
    }
    more()
  })
  const rows = made(t, { url }).stream('SELECT 1')

  assert.deepEqual(await all(rows), [{ name: 'é', n: 9007199254740993n }, { $end: 1 }])
  assert.deepEqual(rows.end, end)
  assert.equal(asked[0].headers.accept, 'application/x-ndjson')
  assert.equal(asked[0].headers['x-deadline-ms'], '60000')
})

test('a stream that says $error, or says nothing at its end, is an error', async (t) => {
  const said = problem(503, 'engine_unavailable').body
  const bodies = [
    lines({ id: 1 }, { $error: said }), lines({ id: 1 }), { body: '' },
    { body: '{"id": 1}\n{"id"' }, problem(422, 'query_rejected')
  ]
  const kinds = [EngineUnavailable, StreamCut, StreamCut, StreamCut]
  const { url } = await fake(t, (_, n) => bodies[n - 1])
  const client = made(t, { url })

  for (const kind of kinds) await assert.rejects(all(client.stream('SELECT 1')), kind)
  await assert.rejects(all(client.stream('SELECT 1')), { code: 'query_rejected' })
})

test('a connection that breaks within a stream is StreamCut', async (t) => {
  const { url } = await fake(t, ({ response, socket }) => {
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
    response.write('{"id":1}\n', () => setTimeout(() => socket.destroy(), 20))
  })
  const rows = made(t, { url }).stream('SELECT 1')
  const read = []

  await assert.rejects(async () => { for await (const row of rows) read.push(row) }, StreamCut)

  assert.deepEqual(read, [{ id: 1 }])
})

test('leaving a stream early hangs up', async (t) => {
  let hungUp
  const closed = new Promise((resolve) => { hungUp = resolve })
  const { url } = await fake(t, ({ response, socket }) => {
    socket.on('close', hungUp)
    response.writeHead(200)
    const more = () => response.writable && response.write('{"id":1}\n', () => setImmediate(more))
    more()
  })

  for await (const row of made(t, { url }).stream('SELECT 1')) {
    assert.deepEqual(row, { id: 1 })
    break
  }

  await closed
})

test('a batch gives results and errors in order', async (t) => {
  const failed = { status: 409, problem: problem(409, 'conflict').body }
  const { url, asked } = await fake(t, () => ({ body: { results: [{ status: 200, ...ROWS }, failed] } }))

  const [first, second] = await made(t, { url }).batch([
    { query: 'SELECT 1', params: [1] }, { query: 'SELECT 2', readOnly: true }
  ])

  assert.deepEqual(first, ROWS)
  assert.ok(second instanceof Conflict)
  assert.deepEqual(asked[0].body.queries,
    [{ query: 'SELECT 1', params: [1] }, { query: 'SELECT 2', options: { readOnly: true } }])
})

test('cross-database operations carry a key, and their failure says which', async (t) => {
  const operations = [{ id: 'debit', state: 'compensated' }]
  const { url, asked } = await fake(t, (_, n) => n < 3
    ? { body: { id: 'x1', mode: 'saga', state: 'committed', operations: [] } }
    : { status: 424, body: { id: 'x1', mode: 'saga', state: 'compensated', operations } })
  const client = made(t, { url })
  const debit = {
    id: 'debit',
    query: 'UPDATE a',
    targetDatabase: 'postgresql',
    compensate: { query: 'UPDATE b', params: [{ $opId: true }] }
  }

  const result = await client.crossDb([debit], { mode: 'saga', idempotencyKey: 'k' })
  await client.crossDb([debit])

  assert.equal(result.state, 'committed')
  assert.equal(asked[0].headers['idempotency-key'], 'k')
  assert.deepEqual(asked[0].body, { mode: 'saga', operations: [debit] })
  assert.match(asked[1].headers['idempotency-key'], /^[0-9a-f-]{36}$/)
  await assert.rejects(client.crossDb([debit]),
    (error) => error instanceof OperationFailed && error.members.operations[0].state === 'compensated')
})

test('names travel whole, and an answer says where it came from', async (t) => {
  const { url, asked } = await fake(t, ({ method }) => method === 'GET'
    ? { headers: { 'Plan2-Source': 'redis', 'Plan2-Degraded': 'true', 'Plan2-Fallback-From': 'dragonflydb' }, body: { value: null, ttl: null } }
    : { status: 204, headers: { 'Plan2-Source': 'dragonflydb' }, body: '' })
  const { cache } = made(t, { url })

  const found = await cache.get('a/b c?é', { namespace: 'n' })
  const put = await cache.put('..', [1], { ttl: 5 })
  await cache.delete('.')

  assert.deepEqual(found, { value: null, ttl: null, source: 'redis', degraded: true, fallbackFrom: 'dragonflydb' })
  assert.deepEqual(put, { source: 'dragonflydb', degraded: false, fallbackFrom: undefined })
  assert.deepEqual(asked.map(({ method, path }) => `${method} ${path}`), [
    'GET /api/v2/cache/a%2Fb%20c%3F%C3%A9', 'PUT /api/v2/cache/%2E%2E', 'DELETE /api/v2/cache/%2E'
  ])
  assert.equal(asked[0].headers['plan2-namespace'], 'n')
  assert.deepEqual(asked[1].body, { value: [1], ttl: 5 })
  await assert.rejects(cache.get(''), TypeError)
})

test('what is not there is null', async (t) => {
  const { url } = await fake(t, () => problem(404, 'not_found'))
  const client = made(t, { url })

  const found = await Promise.all([
    client.cache.get('k'), client.sessions.get('s'), client.config.get('u', 'k'),
    client.registry.get('n'), client.routes.get('r'), client.crossDbGet('x')
  ])

  assert.deepEqual(found, [null, null, null, null, null, null])
})

test('a configuration is written on conditions', async (t) => {
  const { url, asked } = await fake(t, () => ({ body: { version: 4 } }))
  const { config } = made(t, { url })

  assert.equal(await config.put('u', 'k', { a: 1 }, { ifMatch: 3, actor: 'me' }), 4)
  await config.put('u', 'k', 1, { createOnly: true })

  assert.equal(asked[0].headers['if-match'], '"3"')
  assert.equal(asked[0].headers['plan2-actor'], 'me')
  assert.equal(asked[1].headers['if-none-match'], '*')
})

test('ready() waits until the sidecar says so', async (t) => {
  const { url, asked } = await fake(t, (_, n) => n < 3 ? problem(503, 'not_ready') : { body: {} })

  await made(t, { url }).ready()

  assert.equal(asked.length, 3)
  await assert.rejects(made(t, { url: 'http://127.0.0.1:1' }).ready(150), SidecarUnreachable)
})
