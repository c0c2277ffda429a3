// Against a real sidecar, which the variables of the environment lead to: run by the Python tests.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  ApiGatewayDatabaseConfig, Client, ConfigServiceDatabaseConfig, DeadlineExceeded, Plan2Error,
  QueryRejected, StreamCut, Unauthorized, VersionMismatch, plan2RateLimitStore
} from '../index.mjs'

const client = new Client()
const postgresql = { targetDatabase: 'postgresql' }
const unique = () => `a/b ü ${randomUUID()}`

before(() => client.ready())
after(() => client.close())

test('rows keep their digits', async () => {
  const { data, rowCount, meta } = await client.query(
    'SELECT $1::bigint AS id, $2::numeric AS n, $3::numeric AS small',
    { params: [2n ** 62n, '12345678901234567890.123', 1.5] })
  const counted = await client.query('SELECT toUInt64({n:UInt64}) AS n', { params: { n: 2n ** 63n } })

  assert.deepEqual(data, [{ id: 2n ** 62n, n: '12345678901234567890.123', small: 1.5 }])
  assert.deepEqual([rowCount, meta.database], [1, 'postgresql'])
  assert.deepEqual(counted.data, [{ n: 2n ** 63n }])
  assert.equal((await client.query(['ECHO', 'hé'])).data, 'hé')
})

test('a refusal has its class', async () => {
  await assert.rejects(client.query('SELECT nothing FROM nowhere', postgresql),
    (error) => error instanceof QueryRejected && error.engineCode === '42P01')
  const stranger = new Client({ url: process.env.PLAN2_URL, token: 'guessed' })
  await assert.rejects(stranger.databases(), Unauthorized)
  stranger.close()
})

test('a deadline ends the call', async () => {
  await assert.rejects(client.query('SELECT pg_sleep(20)', { ...postgresql, timeoutMs: 200 }),
    (error) => error instanceof DeadlineExceeded && error.status === 504)
})

test('aborting ends the statement on the engine', async () => {
  const mark = randomUUID()
  const abort = new AbortController()
  const running = client.query(`SELECT pg_sleep(50), '${mark}'`, { ...postgresql, timeoutMs: 60000, signal: abort.signal })
  const seen = async () => (await client.query(
    `SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()`,
    { ...postgresql, params: [`%pg_sleep(50), '${mark}'%`] })).rowCount === 1
  while (!await seen()) await sleep(50)

  abort.abort()

  await assert.rejects(running, { name: 'AbortError' })
  while (await seen()) await sleep(50)
})

test('a route is explained and the engines are told', async () => {
  assert.equal((await client.route('SELECT 1 LIMIT 1 BY 1')).database, 'clickhouse')
  assert.equal((await client.databases()).postgresql.configured, true)
  assert.equal((await client.health()).status, 'ok')
})

test('a stream has every row, or says why not', async () => {
  const rows = client.stream('SELECT i FROM generate_series(1, 25000) i', postgresql)
  let sum = 0
  for await (const { i } of rows) sum += i

  assert.equal(sum, 25000 * 25001 / 2)
  assert.equal(rows.end.rowCount, 25000)
  const failing = client.stream('SELECT 10 / (20000 - i) AS n FROM generate_series(1, 25000) i', postgresql)
  await assert.rejects(async () => { for await (const row of failing) assert.ok(row) },
    (error) => error instanceof QueryRejected && !(error instanceof StreamCut))
  for await (const row of client.stream('SELECT i FROM generate_series(1, 1000000) i', postgresql)) {
    assert.deepEqual(row, { i: 1 })
    break
  }
})

test('a batch answers each', async () => {
  const [one, two, three] = await client.batch([
    { query: 'SELECT 1 AS n', ...postgresql }, { query: 'SELECT nonsense', ...postgresql }, { query: ['ECHO', 'x'] }
  ])

  assert.deepEqual(one.data, [{ n: 1 }])
  assert.ok(two instanceof Plan2Error)
  assert.equal(three.data, 'x')
})

test('a saga is done and done once', async () => {
  const [table, key] = [`t${randomUUID().replaceAll('-', '')}`, randomUUID()]
  await client.query(`CREATE TABLE ${table}(n int)`, postgresql)
  const operations = [{
    id: 'insert',
    query: `INSERT INTO ${table} VALUES (1)`,
    ...postgresql,
    compensate: { query: `DELETE FROM ${table}` }
  }]
  const options = { mode: 'saga', idempotencyKey: key, timeoutMs: 20000 }

  const first = await client.crossDb(operations, options)
  const second = await client.crossDb(operations, options)

  assert.equal(first.state, 'committed')
  assert.equal(second.id, first.id)
  assert.equal((await client.crossDbGet(key)).id, first.id)
  assert.equal(await client.crossDbGet(randomUUID()), null)
  assert.deepEqual((await client.query(`SELECT count(*) AS n FROM ${table}`, postgresql)).data, [{ n: 1 }])
})

test('the cache', async () => {
  const name = unique()
  assert.equal(await client.cache.get(name), null)
  await client.cache.put(name, { a: [1, null] }, { ttl: 60 })
  const found = await client.cache.get(name)
  await client.cache.delete(name)
  assert.deepEqual(found.value, { a: [1, null] })
  assert.ok(found.ttl > 0 && found.ttl <= 60)
  assert.equal(await client.cache.get(name), null)
})

test('sessions', async () => {
  const name = unique()
  await client.sessions.store(name, { user: 1 }, { ttl: 60 })
  const session = await client.sessions.get(name)
  await client.sessions.delete(name)
  assert.deepEqual([session.id, session.data, session.degraded], [name, { user: 1 }, false])
  assert.equal(await client.sessions.get(name), null)
})

test('configuration with versions', async () => {
  const name = unique()
  const first = await client.config.put(name, 'k', 1, { createOnly: true, actor: 'me' })
  const second = await client.config.put(name, 'k', 2, { ifMatch: first })
  await assert.rejects(client.config.put(name, 'k', 3, { ifMatch: first }), VersionMismatch)
  const stored = await client.config.get(name, 'k')
  const { items, next } = await client.config.history(name, 'k', { limit: 1 })

  assert.deepEqual([stored.value, stored.version, stored.source], [2, second, 'postgresql'])
  assert.deepEqual(items.map(({ oldValue, newValue }) => [oldValue, newValue]), [[1, 2]])
  assert.equal((await client.config.history(name, 'k', { cursor: next })).items[0].actor, 'me')
  await client.config.delete(name, 'k', { ifMatch: second })
  assert.equal(await client.config.get(name, 'k'), null)
})

test('rate limits, and what is handed on', async () => {
  const name = unique()
  const limit = { windowMs: 60000, limit: 2 }
  const decisions = []
  for (let n = 0; n < 3; n++) decisions.push(await client.rateLimit.check(name, limit))
  await client.rateLimit.reset(name)

  assert.deepEqual(decisions.map(({ allowed }) => allowed), [true, true, false])
  assert.deepEqual(Object.keys(decisions[2].headers).sort(), ['RateLimit', 'RateLimit-Policy', 'Retry-After'])
  assert.ok(decisions[2].resetTime > new Date())
  assert.equal((await client.rateLimit.check(name, limit)).allowed, true)
})

test('analytics', async () => {
  const path = unique()
  assert.equal(await client.analytics.log([{ method: 'GET', path, status: 503, durationMs: 2 }]), 1)
  let found
  while (found === undefined) {
    await sleep(200)
    const { items } = await client.analytics.summary({ since: '5m', groupBy: 'path', limit: 1000 })
    found = items.find((item) => item.path === path)
  }
  assert.deepEqual([found.count, found.errors], [1, 1])
})

test('the registry and routes', async () => {
  const name = unique()
  await client.registry.register(name, '1', 'http://a', { metadata: { zone: 1 }, ttl: 60 })
  await client.registry.heartbeat(name, '1', 'http://a')
  await client.routes.put(name, { to: 'x' }, { ttl: 60 })

  assert.deepEqual((await client.registry.get(name)).instances.map(({ url }) => url), ['http://a'])
  assert.ok((await client.registry.list({ limit: 1000 })).items.some((item) => item.name === name))
  assert.deepEqual(await client.routes.get(name), { to: 'x' })
  await client.registry.remove(name, '1')
  await client.routes.delete(name)
  assert.equal(await client.registry.get(name), null)
  assert.equal(await client.routes.get(name), null)
})

test('a service written before changes one import', async () => {
  const name = unique()
  const config = new ConfigServiceDatabaseConfig()
  const gateway = new ApiGatewayDatabaseConfig({ client })
  await config.initialize()
  await config.storeConfig(name, 'theme', { dark: true })
  await config.logConfigChange(name, 'theme', undefined, { dark: true })
  const stored = await config.getConfig(name, 'theme')
  await config.cacheConfig(name, 'theme', { dark: false }, 60)
  await gateway.storeSession(name, { user: 1 }, 60)

  assert.deepEqual(stored, { dark: true })
  assert.deepEqual(await config.getConfig(name, 'theme'), { dark: false })
  assert.equal((await config.getConfigHistory(name, 'theme')).items.length, 2)
  assert.equal(await config.getConfig(name, 'nothing'), null)
  assert.deepEqual(await gateway.getSession(name), { user: 1 })
  assert.equal((await gateway.checkRateLimit(name, 60000, 1)).allowed, true)
  assert.equal((await gateway.checkRateLimit(name, 60000, 1)).allowed, false)
  assert.equal(await gateway.logApiRequest({ method: 'GET', path: '/', status: 200 }), 1)
  assert.equal((await config.healthCheck()).status, 'ok')
  await config.close()
})

test('two replicas with express-rate-limit share one number', async (t) => {
  const require = createRequire(import.meta.url)
  const express = require('express')
  const { rateLimit } = require('express-rate-limit')
  const prefix = unique()
  const addresses = []
  for (let n = 0; n < 2; n++) {
    const app = express()
    app.use(rateLimit({ windowMs: 60000, limit: 5, store: plan2RateLimitStore({ prefix }) }))
    app.get('/', (_, response) => response.send('ok'))
    const server = app.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => { server.closeAllConnections(); server.close() })
    addresses.push(`http://127.0.0.1:${server.address().port}/`)
  }

  const statuses = await Promise.all(Array.from({ length: 40 }, async (_, n) => (await fetch(addresses[n % 2])).status))

  assert.equal(statuses.filter((status) => status === 200).length, 5)
  assert.equal(statuses.filter((status) => status === 429).length, 35)
})
