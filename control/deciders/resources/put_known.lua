-- Adds a message to the stream of known apps if its newest one is still the one the caller has seen, in one step.
-- KEYS[1] the stream; ARGV[1] id of the newest message seen before ("" for none), ARGV[2] the new one's id, ARGV[3] the message,
-- ARGV[4] "1" when it is a snapshot, which replaces all messages before it.
-- Returns 1 when it was added, 0 when someone else was faster: then look again.
local last = redis.call("XREVRANGE", KEYS[1], "+", "-", "COUNT", 1)
if (last[1] and last[1][1] or "") ~= ARGV[1] then
  return 0
end
if ARGV[4] == "1" then
  redis.call("DEL", KEYS[1])
end
redis.call("XADD", KEYS[1], ARGV[2], "b", ARGV[3])
return 1
