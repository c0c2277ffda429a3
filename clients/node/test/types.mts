// Not run: what a service writes has the types it should.
import { rateLimit } from 'express-rate-limit'
import {
  ApiGatewayDatabaseConfig, Client, ConfigServiceDatabaseConfig, Conflict, Plan2Error, plan2RateLimitStore
} from '@plan2/client'

interface Account { id: bigint, balance: string }

const client = new Client({ timeoutMs: 1000 })
const { data, meta } = await client.query<Account[]>('SELECT 1', { params: [1n], targetDatabase: 'postgresql' })
export const balance: string = data[0].balance
export const degraded: boolean = meta.degraded
for await (const row of client.stream<Account>('SELECT 1', { signal: AbortSignal.timeout(5) })) row.id.toString()
for (const result of await client.batch([{ query: ['GET', 'k'] }])) {
  if (result instanceof Plan2Error) throw result
  result.rowCount.toFixed()
}
export const version: number = await client.config.put('u', 'k', {}, { ifMatch: 2 })
export const value: string | undefined = (await client.cache.get<string>('k'))?.value
// @ts-expect-error there is no such engine
await client.query('SELECT 1', { targetDatabase: 'oracle' })

const config = new ConfigServiceDatabaseConfig()
await config.initialize()
await config.logConfigChange('u', 'k', 1, 2)
const gateway = new ApiGatewayDatabaseConfig({ client })
const { allowed, resetTime } = await gateway.checkRateLimit('client', 60000, 10)
export const at: number | false = allowed && resetTime.getTime()
export const limiter = rateLimit({ windowMs: 1000, limit: 3, store: plan2RateLimitStore({ client }) })

try {
  await client.query('SELECT 1')
} catch (error) {
  if (error instanceof Conflict && error.retryable) setTimeout(() => {}, error.retryAfterMs)
}
