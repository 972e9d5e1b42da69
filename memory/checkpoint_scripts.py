"""The Lua side of the checkpointer: each script is one atomic round trip on the four keys of one thread.

``KEYS`` are always the index, the checkpoints, the blobs and the writes of the thread
(``memory.keys.checkpoint_thread``); nothing else is touched, as Redis Cluster demands. The values are laid out by
``memory.checkpoint_records``; of a checkpoint's record the scripts read the header only.
"""

from __future__ import annotations

from memory.checkpoint_calls import Script

_EXPIRE = """
local function expire(ttl_ms)
  if tonumber(ttl_ms) > 0 then
    for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ttl_ms) end
  end
end
"""

# A header is what the scripts must know of a record: {parent, run, {channel = version of its blob}, open channels}.
# Records of another format are handed on as they are; the reader says what is wrong with them.
_READ = """
local function header_of(record)
  if not record or string.byte(record, 1) ~= 1 or #record < 5 then return nil end
  local size = struct.unpack('>I4', string.sub(record, 2, 5))
  local good, header = pcall(cmsgpack.unpack, string.sub(record, 6, 5 + size))
  if good and type(header) == 'table' and type(header[3]) == 'table' and type(header[4]) == 'table' then
    return header
  end
end

local function names_of(member)
  local names, list, at = {}, redis.call('HGET', KEYS[4], member), 1
  while list and at <= #list do
    names[#names + 1], at = struct.unpack('>I4c0', list, at)
  end
  return names
end

local function writes_of(member)
  local writes = {}
  for i, name in ipairs(names_of(member)) do
    writes[i] = redis.call('HGET', KEYS[4], member .. name)
  end
  return writes
end

local function latest_of(ns)
  return redis.call('ZREVRANGEBYLEX', KEYS[1], '[' .. ns .. '\\255', '[' .. ns, 'LIMIT', 0, 1)[1]
end
"""

PUT = Script(
    _EXPIRE
    + """
-- ARGV: ttl in ms, member, record, 2 * new blobs, (field, blob) ..., fields of the blobs that are referred to again
local last = 4 + tonumber(ARGV[4])
local lost = {}
for i = last + 1, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then lost[#lost + 1] = ARGV[i] end
end
if #lost > 0 then return lost end
for i = 5, last, 1000 do redis.call('HSET', KEYS[3], unpack(ARGV, i, math.min(i + 999, last))) end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
local is_new_thread = redis.call('ZADD', KEYS[1], 0, ARGV[2]) == 1 and redis.call('ZCARD', KEYS[1]) == 1
expire(ARGV[1])
return is_new_thread and 1 or 0
"""
)
"""Stores a checkpoint and its changed channels. Replies 1 when the thread is new, else 0; or stores nothing and replies
with the unchanged blobs that are no longer there (expired, pruned under a fork)."""

PUT_WRITES = Script(
    _EXPIRE
    + """
-- ARGV: ttl in ms, member, (name, 1 when a later one replaces an earlier one, batch) ...
local list
for i = 3, #ARGV, 3 do
  local added
  if ARGV[i + 1] == '1' then
    added = redis.call('HSET', KEYS[4], ARGV[2] .. ARGV[i], ARGV[i + 2])
  else
    added = redis.call('HSETNX', KEYS[4], ARGV[2] .. ARGV[i], ARGV[i + 2])
  end
  if added == 1 then
    list = (list or redis.call('HGET', KEYS[4], ARGV[2]) or '') .. struct.pack('>I4c0', #ARGV[i], ARGV[i])
  end
end
if list then redis.call('HSET', KEYS[4], ARGV[2], list) end
expire(ARGV[1])
return 0
"""
)
"""Stores batches of pending writes; the field of the checkpoint itself lists their names in order of arrival."""

GET = Script(
    _READ
    + """
-- ARGV: prefix of the namespace, checkpoint id or '' for the latest, fields of the blobs that the caller has ...
local held = {}
for i = 3, #ARGV do held[ARGV[i]] = true end
local member = ARGV[1] .. ARGV[2]
if ARGV[2] == '' then
  member = latest_of(ARGV[1])
  if not member then return false end
end
local record = redis.call('HGET', KEYS[2], member)
if not record then
  if ARGV[2] == '' then return {member, false, {}, {}} end
  return false
end
local header = header_of(record)
if not header then return {member, record, {}, {}} end
local blobs = {}
for channel, version in pairs(header[3]) do
  local field = ARGV[1] .. version .. '\\0' .. channel
  blobs[#blobs + 1] = channel
  if held[field] and redis.call('HEXISTS', KEYS[3], field) == 1 then
    blobs[#blobs + 1] = 1
  else
    blobs[#blobs + 1] = redis.call('HGET', KEYS[3], field)
  end
end
return {member, record, blobs, writes_of(member)}
"""
)
"""One checkpoint whole: [member, record, [channel, blob or 1 when the caller has it, …], [batch, …]], or nil."""

FETCH = Script(
    _READ
    + """
-- ARGV: number of members, members ..., fields of blobs ...
local count = tonumber(ARGV[1])
local writes, blobs = {}, {}
for i = 2, 1 + count do
  writes[i - 1] = redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 and writes_of(ARGV[i])
end
for i = 2 + count, #ARGV do blobs[i - 1 - count] = redis.call('HGET', KEYS[3], ARGV[i]) end
return {writes, blobs}
"""
)
"""Pending writes of some checkpoints (nil for one that is gone) and some blobs (nil for one that is gone)."""

HISTORY = Script(
    _READ
    + """
-- ARGV: prefix of the namespace, checkpoint id or '' for the latest, most ancestors to visit, channels ...
local member = ARGV[2] == '' and latest_of(ARGV[1]) or (ARGV[1] .. ARGV[2])
local header = member and header_of(redis.call('HGET', KEYS[2], member))
local wanted, left = {}, 0
for i = 4, #ARGV do wanted[ARGV[i]] = true; left = left + 1 end
local steps, at = {}, ''
while header and header[1] ~= '' and left > 0 and #steps < tonumber(ARGV[3]) do
  at = header[1]
  member = ARGV[1] .. at
  header = header_of(redis.call('HGET', KEYS[2], member))
  if header then
    local seeds = {}
    for channel, version in pairs(header[3]) do
      if wanted[channel] then
        wanted[channel] = nil
        left = left - 1
        seeds[#seeds + 1] = channel
        seeds[#seeds + 1] = redis.call('HGET', KEYS[3], ARGV[1] .. version .. '\\0' .. channel)
      end
    end
    steps[#steps + 1] = {at, writes_of(member), seeds}
  end
end
return {header and header[1] ~= '' and left > 0 and at or '', steps}
"""
)
"""Ancestors from the parent upwards, as [id, writes, [channel, blob, …]], until each channel has met a stored value;
first comes the checkpoint to go on from, or ''."""

REMOVE = Script(
    _READ
    + """
-- ARGV: 'latest' (keep the latest checkpoint of each namespace), or 'runs' and the ids of the runs to delete
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
local headers, kept, runs = {}, {}, {}
for i = 2, #ARGV do runs[ARGV[i]] = true end
local function prefix_of(member)
  local digits = string.match(member, '^%d+')
  return string.sub(member, 1, #digits + 2 + tonumber(digits))
end
for i, member in ipairs(members) do
  headers[member] = header_of(redis.call('HGET', KEYS[2], member))
  if ARGV[1] == 'runs' then
    kept[member] = not (headers[member] and runs[headers[member][2]])
  else
    kept[member] = i == #members or prefix_of(members[i + 1]) ~= prefix_of(member)
  end
end
if ARGV[1] == 'latest' then
  -- A delta channel has no blob until an ancestor's snapshot: keep the chain up to there.
  for _, member in ipairs(members) do
    local header, prefix = headers[member], prefix_of(member)
    if kept[member] and header and #header[4] > 0 then
      local open = {}
      for _, channel in ipairs(header[4]) do open[channel] = true end
      while header and header[1] ~= '' and next(open) do
        local ancestor = prefix .. header[1]
        header = headers[ancestor]
        if header then
          kept[ancestor] = true
          for channel in pairs(header[3]) do open[channel] = nil end
        end
      end
    end
  end
end
local marked, left, lost_runs, removed = {}, {}, {}, 0
for _, member in ipairs(members) do
  local header = headers[member]
  if kept[member] then
    if header then
      left[header[2]] = true
      local prefix = prefix_of(member)
      for channel, version in pairs(header[3]) do marked[prefix .. version .. '\\0' .. channel] = true end
    end
  else
    removed = removed + 1
    if header then lost_runs[header[2]] = true end
    for _, name in ipairs(names_of(member)) do redis.call('HDEL', KEYS[4], member .. name) end
    redis.call('HDEL', KEYS[4], member)
    redis.call('HDEL', KEYS[2], member)
    redis.call('ZREM', KEYS[1], member)
  end
end
if removed > 0 and removed == #members then
  redis.call('UNLINK', KEYS[3], KEYS[4])
else
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    if not marked[field] then redis.call('HDEL', KEYS[3], field) end
  end
end
local reply = {}
for run in pairs(lost_runs) do
  if run ~= '' and not left[run] then reply[#reply + 1] = run end
end
return {#members - removed, reply}
"""
)
"""Deletes checkpoints with their writes, then every blob that no checkpoint refers to. Replies with the number of
checkpoints left and the runs that have none left."""

DELETE = Script(
    _READ
    + """
local runs, reply = {}, {}
for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
  local header = header_of(record)
  if header and header[2] ~= '' and not runs[header[2]] then
    runs[header[2]] = true
    reply[#reply + 1] = header[2]
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return reply
"""
)
"""Deletes a thread and replies with the runs that had checkpoints in it."""

DUMP = Script(
    """
return {
  redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
}
"""
)
"""A thread whole, at one instant."""

ALL = (PUT, PUT_WRITES, GET, FETCH, HISTORY, REMOVE, DELETE, DUMP)
