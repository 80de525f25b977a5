-- Enters what one node has leased today into a ledger, some apps at a time. Entering the same again changes nothing.
-- KEYS: the ledger's head, hash of the day (app -> requests leased), the node's own one.
-- ARGV: id of the ledger, day, then app and requests of each lease.  Both hashes forget themselves two days later.
-- Returns 1, 0 when this is another ledger or does not cover the day, -2 when a count in it is wrong.
local head, all, own = KEYS[1], KEYS[2], KEYS[3]
local id, from, newest = unpack(redis.call('HMGET', head, 'id', 'from', 'newest'))
local day = ARGV[2]
if id ~= ARGV[1] or day < (from or day) then
  return 0
end
if redis.call('EXISTS', all) == 0 then
  if day <= newest then
    return day == newest and -2 or 0
  end
  redis.call('HSET', head, 'newest', day)
  redis.call('HSET', all, '', 0)
end
local function count(hash, app)
  local found = redis.call('HGET', hash, app) or '0'
  return string.match(found, '^%d+$') and #found < 16 and tonumber(found)
end
for k = 3, #ARGV, 2 do
  local before = count(own, ARGV[k])
  if not before or not count(all, ARGV[k]) then
    return -2
  end
  redis.call('HSET', own, ARGV[k], ARGV[k + 1])
  redis.call('HINCRBY', all, ARGV[k], tonumber(ARGV[k + 1]) - before)
end
redis.call('EXPIRE', all, 172800)
redis.call('EXPIRE', own, 172800)
return 1
