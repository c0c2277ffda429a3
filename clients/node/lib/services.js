'use strict'
/**
 * The data-access classes that services have today, by today's method names: a service keeps its
 * calls and changes one import. Everything else that the client can do is at `.client`.
 */
const { Client } = require('./client.js')

class DatabaseConfig {
  /** `{client}` to share one, else the options of Client. */
  constructor (options = {}) {
    this.client = options.client ?? new Client(options)
  }

  /** Wait until the sidecar serves. */
  async initialize (timeoutMs = 30000) {
    await this.client.ready(timeoutMs)
  }

  async healthCheck () {
    return this.client.health()
  }

  async close () {
    this.client.close()
  }
}

class ConfigServiceDatabaseConfig extends DatabaseConfig {
  /** Write, and the new version. */
  async storeConfig (user, key, data) {
    return this.client.config.put(user, key, data)
  }

  /** The value, null when there is none. */
  async getConfig (user, key) {
    return (await this.client.config.get(user, key))?.value ?? null
  }

  async deleteConfig (user, key) {
    await this.client.config.delete(user, key)
  }

  /** What `getConfig` says for `ttl` seconds; PostgreSQL is not touched. */
  async cacheConfig (user, key, data, ttl) {
    return this.client.config.cache(user, key, data, { ttl })
  }

  async logConfigChange (user, key, oldValue, newValue) {
    await this.client.config.logChange(user, key, oldValue, newValue)
  }

  /** Newest first. */
  async getConfigHistory (user, key, limit = 100) {
    return this.client.config.history(user, key, { limit })
  }
}

class ApiGatewayDatabaseConfig extends DatabaseConfig {
  async storeSession (id, data, ttl = 3600) {
    return this.client.sessions.store(id, data, { ttl })
  }

  /** The session's data, null when there is none. */
  async getSession (id) {
    return (await this.client.sessions.get(id))?.data ?? null
  }

  async deleteSession (id) {
    await this.client.sessions.delete(id)
  }

  /** Count one hit, unless it is over the limit: then `allowed` is false. */
  async checkRateLimit (clientId, windowMs = 900000, limit = 100) {
    return this.client.rateLimit.check(clientId, { windowMs, limit })
  }

  /** Hand over one request that was served, or a list; the number taken. */
  async logApiRequest (data) {
    return this.client.analytics.log(data)
  }
}

module.exports = { ApiGatewayDatabaseConfig, ConfigServiceDatabaseConfig }
