import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { once } from 'node:events'
import { test } from 'node:test'
import { fake, problem } from './fake.mjs'
import { plan2RateLimitStore } from '../index.mjs'

/** Fixed windows as the API has them: a denied hit is not counted. */
async function limits (context) {
  const counters = new Map()
  const sidecar = await fake(context, ({ method, path, body }) => {
    if (method === 'DELETE') {
      counters.delete(decodeURIComponent(path.split('/').at(-1)))
      return { status: 204, body: '' }
    }
    const { clientId, windowMs, limit, peek } = body
    const counter = counters.get(clientId) ?? { used: 0, until: Date.now() + windowMs }
    counters.set(clientId, counter)
    const allowed = counter.used < limit
    if (allowed && !peek) counter.used++
    const totalHits = allowed ? counter.used : limit + 1
    const resetMs = counter.until - Date.now()
    const remaining = limit - counter.used
    return { body: { allowed, limit, remaining, totalHits, resetMs, source: 'store', degraded: false } }
  })
  return { ...sidecar, counters }
}

function store (context, url, options = {}) {
  const made = plan2RateLimitStore({ url, environ: {}, windowMs: 60000, limit: 2, ...options })
  context.after(() => made.shutdown())
  return made
}

test('hits are counted, and above the limit where they are denied', async (t) => {
  const { url, asked } = await limits(t)
  const hits = store(t, url, { exact: true })

  const totals = []
  for (let n = 0; n < 4; n++) totals.push((await hits.increment('a')).totalHits)
  const { resetTime } = await hits.increment('a')

  assert.deepEqual(totals, [1, 2, 3, 3])
  assert.ok(resetTime instanceof Date && resetTime > Date.now())
  assert.deepEqual(asked[0].body, { clientId: 'express:a', windowMs: 60000, limit: 2, exact: true })
})

test('looking does not count, and a reset forgets', async (t) => {
  const { url } = await limits(t)
  const hits = store(t, url)
  await hits.increment('a/b')

  assert.equal((await hits.get('a/b')).totalHits, 1)
  assert.equal((await hits.get('a/b')).totalHits, 1)
  await hits.resetKey('a/b')
  assert.equal((await hits.get('a/b')).totalHits, 0)
})

test('a hit that is given back is the next one', async (t) => {
  const { url, counters } = await limits(t)
  const hits = store(t, url)

  for (let n = 0; n < 5; n++) {
    assert.equal((await hits.increment('a')).totalHits, 1)
    await hits.decrement('a')
  }

  assert.equal(counters.get('express:a').used, 1)
  assert.equal((await hits.get('a')).totalHits, 0)
  const totals = []
  for (let n = 0; n < 3; n++) totals.push((await hits.increment('a')).totalHits)
  assert.deepEqual(totals, [1, 2, 3])
})

test('giving back more than was taken gives nothing', async (t) => {
  const { url } = await limits(t)
  const hits = store(t, url)

  await hits.decrement('a')
  await hits.increment('a')
  for (let n = 0; n < 9; n++) await hits.decrement('a')
  const totals = []
  for (let n = 0; n < 3; n++) totals.push((await hits.increment('a')).totalHits)

  assert.deepEqual(totals, [1, 2, 3])
})

test('what was given back in a window is not spent in the next', async (t) => {
  const { url, counters } = await limits(t)
  const hits = store(t, url)
  await hits.increment('a')
  await hits.decrement('a')

  counters.clear()
  await hits.increment('a')

  assert.equal(counters.get('express:a').used, 1)
})

test('a denied hit that is given back was never counted', async (t) => {
  const { url } = await limits(t)
  const hits = store(t, url)
  hits.init({ windowMs: 1, limit: 9, skipFailedRequests: true })

  for (let n = 0; n < 3; n++) await hits.increment('a')
  await hits.decrement('a')

  assert.equal((await hits.increment('a')).totalHits, 3)
})

test('a limit that is a function needs one for the store', () => {
  const init = (options) => plan2RateLimitStore({ environ: {}, ...options }).init({ windowMs: 1, limit: () => 3 })

  assert.throws(() => init({}), /limit/)
  init({ limit: 3 })
})

test('the real express-rate-limit counts with it', async (t) => {
  const require = createRequire(import.meta.url)
  const express = require('express')
  const { rateLimit } = require('express-rate-limit')
  const { url } = await limits(t)
  const wrong = []
  const logger = { error: (...said) => wrong.push(said), warn: (...said) => wrong.push(said) }
  const replicas = [1, 2].map(() => plan2RateLimitStore({ url, environ: {} }))
  const addresses = []
  for (const shared of replicas) {
    const app = express()
    app.use(rateLimit({ windowMs: 60000, limit: 3, standardHeaders: 'draft-8', legacyHeaders: false, store: shared, logger }))
    app.get('/', (_, response) => response.send('ok'))
    const server = app.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => { server.closeAllConnections(); server.close(); shared.shutdown() })
    addresses.push(`http://127.0.0.1:${server.address().port}/`)
  }

  const statuses = []
  for (let n = 0; n < 6; n++) statuses.push((await fetch(addresses[n % 2])).status)

  assert.deepEqual(statuses, [200, 200, 200, 429, 429, 429])
  assert.match((await fetch(addresses[0])).headers.get('ratelimit'), /r=0/)
  assert.deepEqual(wrong, [])
})

test('express-rate-limit skips what succeeded', async (t) => {
  const require = createRequire(import.meta.url)
  const express = require('express')
  const { rateLimit } = require('express-rate-limit')
  const { url } = await limits(t)
  const shared = plan2RateLimitStore({ url, environ: {} })
  const app = express()
  app.use(rateLimit({ windowMs: 60000, limit: 2, skipSuccessfulRequests: true, store: shared }))
  app.get('/:status', (request, response) => response.status(Number(request.params.status)).send('x'))
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close(); shared.shutdown() })
  const get = async (status) => (await fetch(`http://127.0.0.1:${server.address().port}/${status}`)).status

  const statuses = []
  for (const asked of [200, 200, 200, 401, 200, 401, 401, 200]) statuses.push(await get(asked))

  assert.deepEqual(statuses, [200, 200, 200, 401, 200, 401, 429, 429])
})

test('a sidecar that cannot count is an error, for express to pass or to stop', async (t) => {
  const { url } = await fake(t, () => problem(503, 'engine_unavailable'))

  await assert.rejects(store(t, url).increment('a'), { code: 'engine_unavailable' })
})
