"""What runs on the store: one declared key each, integers back, on Dragonfly and on Redis.

Dragonfly runs Lua 5.4 and Redis Lua 5.1. Integers are made with math.floor, which gives one on
both; a float would come back as a double from Dragonfly and cut short from Redis. Time is the
store's own, in milliseconds.
"""

from typing import Final

from plan2_sidecar.store import Script

_NOW: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
"""

# limit, wanted by those who wait, the least of those, demand beyond them, sidecars, windowMs
# → granted, used with it, milliseconds left, and the window's end, which is its name.
GRANT: Final = Script("""
local limit, wanted, least = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local demand, sidecars = tonumber(ARGV[4]), tonumber(ARGV[5])
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local left = limit - used
local grant = 0
if wanted > 0 and left >= least then
  local share = math.floor(left / (2 * sidecars))
  grant = math.min(left, math.max(wanted, math.min(demand, share)))
  used = redis.call('INCRBY', KEYS[1], grant)
  if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
end
return {grant, used, redis.call('PTTL', KEYS[1]), redis.call('PEXPIRETIME', KEYS[1])}
""")

# unspent, the window's end: back into that window, and into no other.
GIVE_BACK: Final = Script("""
if redis.call('PEXPIRETIME', KEYS[1]) ~= tonumber(ARGV[2]) then return 0 end
redis.call('DECRBY', KEYS[1], ARGV[1])
return 1
""")

# limit, needed, taken, windowMs, bucketMs → allowed, used, milliseconds to a full limit and to
# the next try (-1 for never). The window and one bucket more are counted, whole: so any interval
# of windowMs lies within what is counted, and holds no more than the limit.
SLIDING_WINDOW: Final = Script(
    _NOW
    + """
local limit, needed, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window, size = tonumber(ARGV[4]), tonumber(ARGV[5])
local counted = math.floor((window + size - 1) / size) + 1
local current = math.floor(now / size)
local used, newest, held, gone = 0, current - counted, {}, {}
-- Not HGETALL, which is a map to some and a list to others.
local buckets = redis.call('HKEYS', KEYS[1])
local counts = #buckets > 0 and redis.call('HMGET', KEYS[1], unpack(buckets)) or {}
for i = 1, #buckets do
  local bucket, hits = tonumber(buckets[i]), tonumber(counts[i])
  if bucket + counted <= current then
    gone[#gone + 1] = buckets[i]
  else
    used = used + hits
    newest = math.max(newest, bucket)
    held[#held + 1] = {bucket, hits}
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
local allowed, retry = 0, -1
if used + needed <= limit then
  allowed, retry = 1, 0
  if taken > 0 then
    redis.call('HINCRBY', KEYS[1], current, taken)
    redis.call('PEXPIRE', KEYS[1], (counted + 1) * size)
    used = used + taken
    newest = math.max(newest, current)
  end
else
  table.sort(held, function(a, b) return a[1] < b[1] end)
  local over = used + needed - limit
  for _, entry in ipairs(held) do
    over = over - entry[2]
    if over <= 0 then
      retry = (entry[1] + counted) * size - now
      break
    end
  end
end
local reset = 0
if used > 0 then reset = (newest + counted) * size - now end
return {allowed, used, reset, retry}
"""
)

# limit, needed, taken, windowMs → allowed, remaining, milliseconds to a full limit and to the
# next try. Kept is how long until the limit is full again, and when that was so: a time since
# the epoch has no digits left for the share of a millisecond that a hit may cost.
GCRA: Final = Script(
    _NOW
    + """
local limit, needed, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window = tonumber(ARGV[4])
local hit = window / limit
local debt = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local at, owed = string.match(kept, '^(%d+):(.+)$')
  debt = math.max(0, tonumber(owed) - math.max(0, now - tonumber(at)))
end
-- Sums of shares are off in their last digit.
local full = window + hit / 1000
local allowed, retry = 0, 0
if debt + needed * hit <= full then
  allowed = 1
  if taken > 0 then
    debt = debt + taken * hit
    local value = string.format('%.0f:%.17g', now, debt)
    redis.call('SET', KEYS[1], value, 'PX', math.max(1, math.ceil(debt)))
  end
else
  retry = math.ceil(debt + needed * hit - full)
end
local remaining = math.max(0, math.floor((full - debt) / hit))
return {allowed, remaining, math.ceil(debt), retry}
"""
)

# A sidecar's name, and after how many milliseconds of silence one is gone → how many there are.
PRESENT: Final = Script(
    _NOW
    + """
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
)

ALL: Final = (GRANT, GIVE_BACK, SLIDING_WINDOW, GCRA, PRESENT)
