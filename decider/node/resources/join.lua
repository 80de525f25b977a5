-- Takes a decider into the ledger of leases, and opens the ledger once nobody is missing. An emptied store, data of
-- another server (a restart, a backup, a replica) and a ledger that a decider found wrong begin a new, closed one.
-- KEYS[1]: the ledger's head.  ARGV: id for a new ledger, id of a wrong one or "", id of the ledger into which this
-- decider has entered its leases (and those of the nodes it vouches for) or "" when it knows of none, day (YYYYMMDD),
-- its name, unix second since which it knows its leases of the day, number of its last lease call that was answered,
-- seconds to stay closed, how many nodes it vouches for, their names, then of each node that it saw: its name, and the
-- last day of which it may hold leases with its first heartbeat ("YYYYMMDD unix-seconds").
-- Returns: the ledger's id, 1 when open, then the names of the nodes that are missing.
local head, entered, day, me = KEYS[1], ARGV[3], ARGV[4], ARGV[5]
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local now = tonumber(redis.call('TIME')[1])
if redis.call('TYPE', head).ok ~= 'hash' then
  redis.call('DEL', head)
end
local id = redis.call('HGET', head, 'id')
local calls = tonumber(redis.call('HGET', head, 'calls:' .. me) or '0') or -1
if not id or id == ARGV[2] or redis.call('HGET', head, 'server') ~= server or
    (id == entered and calls < tonumber(ARGV[7])) then
  id = ARGV[1]
  redis.call('DEL', head)
  redis.call('HSET', head, 'id', id, 'server', server, 'begun', now, 'from', day, 'newest', '')
end
local open = redis.call('HGET', head, 'open') == '1'
local from = redis.call('HGET', head, 'from') or ''
if not open and day > from then
  -- Deciders in a new day have forgotten the one before: nothing more of that one may be leased. What was entered for
  -- nodes that are gone was of that day; all others come in again.
  for _, field in ipairs(redis.call('HKEYS', head)) do
    if string.sub(field, 1, 3) == 'in:' then
      redis.call('HDEL', head, field)
    end
  end
  redis.call('HSET', head, 'from', day)
  from = day
end
local vouched = tonumber(ARGV[9])
if entered == id or entered == '' then
  redis.call('HSET', head, 'in:' .. me, ARGV[6])
end
if entered == id and day == from then
  for k = 10, 9 + vouched do
    redis.call('HSET', head, 'in:' .. ARGV[k], '0')
  end
end
if open then
  return {id, 1}
end
for k = 10 + vouched, #ARGV, 2 do
  redis.call('HSET', head, 'want:' .. ARGV[k], ARGV[k + 1])
end
local fields, missing = redis.call('HGETALL', head), {}
for k = 1, #fields, 2 do
  local name = string.match(fields[k], '^want:(.*)$')
  if name then
    local last_day, first = string.match(fields[k + 1], '^(%d+) (.+)$')
    local known_since = tonumber(redis.call('HGET', head, 'in:' .. name) or '')
    -- a node that lost its memory of the day after it was seen does not know what it had leased
    if last_day and last_day >= from and not (known_since and known_since <= (tonumber(first) or 0)) then
      table.insert(missing, name)
    end
  end
end
if #missing > 0 or now - (tonumber(redis.call('HGET', head, 'begun')) or 0) < tonumber(ARGV[8]) then
  return {id, 0, unpack(missing)}
end
redis.call('HSET', head, 'open', '1')
return {id, 1}
