"""The Lua scripts of the streams. Each touches one key, so that a Redis Cluster runs them; all run on Redis 6.2."""

_TRIMMING = """
-- Stream ids as numbers, for comparing.
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function before(a, b)
  local am, as = parts(a)
  local bm, bs = parts(b)
  return am < bm or (am == bm and as < bs)
end
local function after(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end
local function pairs_of(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end
-- The first entry that some group still needs; the same for groups that have a consumer; and the longest backlog of
-- such a group, which Redis 6.2 does not tell.
local function needed(stream)
  local any, working, backlog
  for _, item in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = pairs_of(item)
    local first = after(group['last-delivered-id'])
    if group['pending'] > 0 then
      local oldest = redis.call('XPENDING', stream, group['name'])[2]
      if before(oldest, first) then first = oldest end
    end
    if not any or before(first, any) then any = first end
    -- A Kafka that is away slows nobody down; memory.kafka says how long it is waited for.
    if group['consumers'] > 0 and group['name'] ~= 'kafka' then
      if not working or before(first, working) then working = first end
      if type(group['lag']) == 'number' then
        backlog = math.max(backlog or 0, group['lag'] + group['pending'])
      end
    end
  end
  return any, working, backlog
end
-- Removes at most 1000 entries, so that no other client waits long; returns how many, and whether a working group is
-- behind by more than the length.
local function trim(stream, longest, slack)
  local excess = redis.call('XLEN', stream) - longest
  if excess < slack or excess < 1 then return 0, 0 end
  local any, working, backlog = needed(stream)
  local late = backlog and backlog > longest
  local head = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  if any and not before(head, any) then
    if not backlog then late = working and not before(head, working) end
    return 0, late and 1 or 0
  end
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(excess, 1000) + 1)
  local keep = oldest[#oldest][1]
  if excess >= #oldest then keep = after(keep) end
  if not backlog then late = working and before(working, keep) end
  if any and before(any, keep) then keep = any end
  return redis.call('XTRIM', stream, 'MINID', '=', keep), late and 1 or 0
end
"""

TRIM = (
    _TRIMMING
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0} end
local removed, behind = trim(KEYS[1], tonumber(ARGV[1]), 1)
return {removed, behind}
"""
)
"""KEYS: stream. ARGV: length. Returns {entries removed, 1 when a group that has consumers is behind by the length}."""

APPEND = (
    _TRIMMING
    + """
local longest = tonumber(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  local _, behind = trim(KEYS[1], longest, math.ceil(longest / 100))
  if behind == 1 and ARGV[2] == '0' then return {} end
end
local ids = {}
for i = 3, #ARGV, 5 do
  ids[#ids + 1] = redis.call('XADD', KEYS[1], '*', 'type', ARGV[i], 'ts', ARGV[i + 1], 'agent', ARGV[i + 2],
    'task_id', ARGV[i + 3], 'data', ARGV[i + 4])
end
return ids
"""
)
"""KEYS: stream. ARGV: length, 1 to write even when full, then five words an event. Returns ids, or none when full."""

BACKLOG = (
    _TRIMMING
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local reply = {redis.call('XLEN', KEYS[1])}
for _, item in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = pairs_of(item)
  local lag = group['lag']
  if type(lag) ~= 'number' then
    -- Redis 6.2 keeps no lag, and later ones lose it when an entry was deleted.
    lag = #redis.call('XRANGE', KEYS[1], after(group['last-delivered-id']), '+', 'COUNT', 100000)
  end
  reply[#reply + 1] = {group['name'], lag, group['pending'], group['consumers']}
end
return reply
"""
)
"""KEYS: stream. Returns {length, {group, lag, pending, consumers} …}."""

KEEP = """
local mine = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[2])
if #mine == 0 then return 0 end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
for _, entry in ipairs(mine) do claim[#claim + 1] = entry[1] end
claim[#claim + 1] = 'JUSTID'
return #redis.call(unpack(claim))
"""
"""Renew what is still mine. KEYS: stream. ARGV: group, consumer, first id, last id, count. Returns how many."""

LEAVE = """
for _, item in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #item, 2 do consumer[item[i]] = item[i + 1] end
  if consumer['pending'] == 0 and (consumer['name'] == ARGV[2] or consumer['idle'] > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
  end
end
return 1
"""
"""Forget a consumer, and those idle for long, that hold nothing. KEYS: stream. ARGV: group, consumer, idle ms."""
