-- Takes back what a node had leased of apps' daily quotas and did not use.
-- KEYS: the ledger's head, hash of the day (app -> requests leased), the node's own one.
-- ARGV: id of the ledger, then app and requests given back.
-- Returns the requests taken back: never more of an app than the node had leased, so that the pool cannot grow.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return 0
end
local taken = 0
for k = 2, #ARGV, 2 do
  local leased = tonumber(redis.call('HGET', KEYS[2], ARGV[k]) or '0') or 0
  local mine = tonumber(redis.call('HGET', KEYS[3], ARGV[k]) or '0') or 0
  local back = math.min(tonumber(ARGV[k + 1]), mine, leased)
  if back > 0 then
    redis.call('HINCRBY', KEYS[2], ARGV[k], -back)
    redis.call('HINCRBY', KEYS[3], ARGV[k], -back)
    taken = taken + back
  end
end
return taken
