-- Grants leases of requests out of what deciders share of apps' daily quotas.
-- KEYS: the ledger's head, hash of the day (app -> requests leased), the node's own one, the node's heartbeat.
-- ARGV: id of the ledger, day, the node, number of this call, then of each app: its id, requests asked for, requests
-- that may be leased in all, requests that the node has leased already.
-- Returns for each app the requests granted: 0 when nothing is left, -2 when its count is wrong. Or -1 alone when this
-- is another ledger, one that is closed or does not cover the day, or no one can see this node.
local head, all, own = KEYS[1], KEYS[2], KEYS[3]
local id, server, open, from, newest = unpack(redis.call('HMGET', head, 'id', 'server', 'open', 'from', 'newest'))
local day = ARGV[2]
if id ~= ARGV[1] or open ~= '1' or day < (from or day) or
    server ~= (string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or '') or
    -- others must know of this node before it leases: they account for it should it die
    redis.call('EXISTS', KEYS[4]) == 0 then
  return -1
end
if redis.call('EXISTS', all) == 0 then
  if day < newest then
    return -1
  elseif day == newest then
    return -2
  end
  redis.call('HSET', head, 'newest', day)
  redis.call('HSET', all, '', 0)
end
-- a count is whole, not negative and within what numbers hold exactly; anything else was written by someone else
local function count(hash, app)
  local found = redis.call('HGET', hash, app) or '0'
  return string.match(found, '^%d+$') and #found < 16 and tonumber(found)
end
local granted = {}
for k = 5, #ARGV, 4 do
  local app, leased, mine = ARGV[k], count(all, ARGV[k]), count(own, ARGV[k])
  local requests = -2
  if leased and mine and mine >= tonumber(ARGV[k + 3]) and leased >= mine then
    requests = math.max(0, math.min(tonumber(ARGV[k + 1]), math.floor(tonumber(ARGV[k + 2]) - leased)))
  end
  if requests > 0 then
    redis.call('HINCRBY', all, app, requests)
    redis.call('HINCRBY', own, app, requests)
  end
  table.insert(granted, requests)
end
redis.call('HSET', head, 'calls:' .. ARGV[3], ARGV[4])
redis.call('EXPIRE', all, 172800)
redis.call('EXPIRE', own, 172800)
return granted
