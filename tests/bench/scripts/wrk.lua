-- What wrk sends: method, path, body and headers from the environment; `%d` in the path or the
-- body is a number from 1 to KEYS, another one each time. Prints one line of JSON at the end.
local method = os.getenv("BENCH_METHOD") or "GET"
local path = os.getenv("BENCH_PATH")
local body = os.getenv("BENCH_BODY") or ""
local keys = tonumber(os.getenv("BENCH_KEYS") or "1")
local headers = {}
for line in (os.getenv("BENCH_HEADERS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("^([^:]+): (.*)$")
  headers[name] = value
end
local prepared = {}
local at = 0

function init(args)
  -- One request a key, made before the clock starts; ten thousand of them at most.
  for key = 1, keys do
    local filled = path:gsub("%%d", tostring(key))
    local text = body:gsub("%%d", tostring(key))
    prepared[key] = wrk.format(method, filled, headers, text ~= "" and text or nil)
  end
end

function request()
  at = at % keys + 1
  return prepared[at]
end

local expected = tonumber(os.getenv("BENCH_STATUS") or "200")
local threads = {}
function setup(thread) table.insert(threads, thread) end

wrong = 0
if os.getenv("BENCH_CHECK") == "1" then
  function response(status, _, _)
    if status ~= expected then wrong = wrong + 1 end
  end
end

function done(summary, latency, _)
  local bad = 0
  for _, thread in ipairs(threads) do bad = bad + thread:get("wrong") end
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,'
    .. '"errors":%d,"statuses":%d,"wrong":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50),
    latency:percentile(90), latency:percentile(99), latency.max,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.errors.status, bad))
end
