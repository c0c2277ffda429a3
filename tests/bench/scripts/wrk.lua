-- Sends the requests of the file BENCH_REQUESTS one after the other, over and over: each stands
-- there as it goes on the wire, after a line with its length. With BENCH_CHECK=1 each answer's
-- status must be BENCH_STATUS (any below 400 where that is 0), or 503. Prints one line of JSON at the end.
local prepared = {}
local at = 0

function init(args)
  local file = assert(io.open(os.getenv("BENCH_REQUESTS"), "rb"))
  while true do
    local length = file:read("*l")
    if not length then break end
    prepared[#prepared + 1] = file:read(tonumber(length))
  end
  file:close()
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

local expected = tonumber(os.getenv("BENCH_STATUS") or "200")
local threads = {}
function setup(thread) table.insert(threads, thread) end

wrong = 0
other = 0
if os.getenv("BENCH_CHECK") == "1" then
  function response(status, _, _)
    if status ~= expected and status ~= 503 and not (expected == 0 and status < 400) then
      wrong = wrong + 1
      other = status
    end
  end
end

function done(summary, latency, _)
  local bad, last = 0, 0
  for _, thread in ipairs(threads) do
    bad = bad + thread:get("wrong")
    last = thread:get("other")
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,'
    .. '"max_us":%d,"errors":%d,"statuses":%d,"wrong":%d,"other":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50),
    latency:percentile(90), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status, bad, last))
end
