'use strict'
/**
 * A store for express-rate-limit: one number per client over every replica of the service.
 *
 * The API has no negative cost, so what `decrement` gives back stays in this process: the client's
 * next hit here looks at the counter instead of raising it. Other replicas go on counting it, so
 * they may deny a little early and never let more in.
 */
const { Client } = require('./client.js')

class Plan2RateLimitStore {
  constructor (options = {}) {
    this.localKeys = false
    this.prefix = options.prefix ?? 'express:'
    this.windowMs = options.windowMs
    this.limit = options.limit
    this.client = options.client ?? new Client(options)
    const { algorithm, exact, onStoreFailure } = options
    this._options = { algorithm, exact, onStoreFailure }
    this._ownClient = options.client === undefined
    this._givesBack = true
    this._deniedAreGivenBack = false
    this._given = new Map()
  }

  /** express-rate-limit's options fill in what the store was not given. */
  init (options) {
    this.windowMs ??= options.windowMs
    const limit = options.limit ?? options.max
    if (typeof limit === 'number') this.limit ??= Math.max(1, limit)
    if (this.limit === undefined) {
      throw new TypeError('a limit that is a function: give the highest to plan2RateLimitStore')
    }
    this._deniedAreGivenBack = options.skipFailedRequests === true
    this._givesBack = this._deniedAreGivenBack || options.skipSuccessfulRequests === true
  }

  /** `{totalHits, resetTime}`; totalHits is above the limit where the hit is denied. */
  async increment (key) {
    return this._spend(key) ? this._unraised(key) : this._raised(key)
  }

  /** The count now, without a hit. */
  async get (key) {
    const now = await this._check(key, { peek: true })
    return { totalHits: Math.max(0, now.totalHits - this._kept(key)), resetTime: now.resetTime }
  }

  /** Give the last hit back. */
  async decrement (key) {
    const given = this._given.get(key)
    if (given === undefined || given.until <= Date.now()) return
    // A hit that was denied was never counted.
    if (given.denied > 0) given.denied--
    else given.hits = Math.min(given.hits + 1, given.raised)
  }

  async resetKey (key) {
    this._given.delete(key)
    await this.client.rateLimit.reset(this.prefix + key)
  }

  /** Close the connections, where they are the store's own. */
  shutdown () {
    if (this._ownClient) this.client.close()
  }

  async _raised (key) {
    const asked = Date.now()
    const now = await this._check(key)
    if (this._givesBack) this._remember(key, asked + now.resetMs, now.allowed)
    return {
      totalHits: now.allowed ? now.totalHits : Math.max(now.totalHits, this.limit + 1),
      resetTime: now.resetTime
    }
  }

  async _unraised (key) {
    const now = await this._check(key, { peek: true })
    // The window this hit was given back in is over.
    if (now.totalHits === 0) return this._raised(key)
    const counted = Math.min(now.totalHits, this.limit)
    return { totalHits: Math.max(1, counted - this._kept(key)), resetTime: now.resetTime }
  }

  _check (key, more = {}) {
    const { windowMs, limit } = this
    const options = { ...this._options, ...more, windowMs, limit }
    return this.client.rateLimit.check(this.prefix + key, options)
  }

  _remember (key, until, allowed) {
    const now = Date.now()
    let given = this._given.get(key)
    if (given === undefined || given.until <= now) given = { hits: 0, denied: 0, raised: 0, until }
    if (allowed) given.raised++
    else if (this._deniedAreGivenBack) given.denied++
    // Put last, so that those at the front are the first whose window is over.
    this._given.delete(key)
    this._given.set(key, given)
    for (const [old, { until: end }] of this._given) {
      if (end > now) break
      this._given.delete(old)
    }
  }

  _kept (key) {
    const given = this._given.get(key)
    return given === undefined || given.until <= Date.now() ? 0 : given.hits
  }

  _spend (key) {
    if (this._kept(key) === 0) return false
    this._given.get(key).hits--
    return true
  }
}

/** The store, for `rateLimit({ store: plan2RateLimitStore() })`. */
function plan2RateLimitStore (options) {
  return new Plan2RateLimitStore(options)
}

module.exports = { Plan2RateLimitStore, plan2RateLimitStore }
