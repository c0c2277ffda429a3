'use strict'
/**
 * Call the Plan2 sidecar of this pod. Everything is found in the environment:
 * `PLAN2_SOCKET`, `PLAN2_URL`, `PLAN2_API_TOKEN_FILE`. What calls raise is drawn in lib/errors.js.
 */
const { Client } = require('./lib/client.js')
const errors = require('./lib/errors.js')
const { plan2RateLimitStore, Plan2RateLimitStore } = require('./lib/rate-limit-store.js')
const { ApiGatewayDatabaseConfig, ConfigServiceDatabaseConfig } = require('./lib/services.js')

module.exports = {
  ...errors.CLASSES,
  ApiGatewayDatabaseConfig,
  Client,
  ConfigServiceDatabaseConfig,
  Plan2RateLimitStore,
  plan2RateLimitStore
}
