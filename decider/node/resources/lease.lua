-- Grants a lease of requests out of what deciders share of one app's daily quota.
-- KEYS[1]: hash of the day, app -> requests leased.  ARGV: app, requests asked for, requests that may be leased in all.
-- Returns the requests granted, 0 when the pool is empty. The hash forgets itself two days later.
local leased = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local granted = math.min(tonumber(ARGV[2]), math.floor(tonumber(ARGV[3]) - leased))
if granted <= 0 then
  return 0
end
redis.call('HINCRBY', KEYS[1], ARGV[1], granted)
redis.call('EXPIRE', KEYS[1], 172800)
return granted
