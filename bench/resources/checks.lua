-- Checks of many apps for wrk; all requests are rendered before the clock starts, and their order is scattered.
-- Arguments: number of apps, and the gateways' secret.
local requests, at, step = {}, 0, 7919

function init(args)
  local apps = tonumber(args[1])
  wrk.headers["x-sluice-secret"] = args[2]
  for k = 0, apps - 1 do
    wrk.headers["x-sluice-app"] = string.format("app_%07d", k)
    wrk.headers["authorization"] = string.format("Bearer token_%d", k)
    requests[k] = wrk.format("GET", string.format("/v1/check/v2/orders/%d", (k * 31) % 20000))
  end
  count = apps
end

function request()
  at = (at + step) % count
  return requests[at]
end
