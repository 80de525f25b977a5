-- Takes back what a node had leased of one app's daily quota and did not use.
-- KEYS[1]: hash of the day, app -> requests leased.  ARGV: app, requests given back.
-- Returns the requests taken back: never more than are leased, so that the pool cannot grow.
local leased = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local back = math.min(tonumber(ARGV[2]), leased)
if back <= 0 then
  return 0
end
redis.call('HINCRBY', KEYS[1], ARGV[1], -back)
return back
