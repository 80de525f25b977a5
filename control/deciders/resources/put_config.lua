-- Replaces the config document if it is still the one the caller has seen, and tells every decider, in one step.
-- KEYS[1] the document's key; ARGV[1] the document seen before ("" for none), ARGV[2] the new one, ARGV[3] the channel.
-- Returns 1 when it was replaced, 0 when someone else was faster: then look again.
local now = redis.call("GET", KEYS[1])
if (now or "") ~= ARGV[1] then
  return 0
end
redis.call("SET", KEYS[1], ARGV[2])
redis.call("PUBLISH", ARGV[3], ARGV[2])
return 1
