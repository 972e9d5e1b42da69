"""Lua scripts over the graph's hashes (field → stream id of its event, a space, its content).

The keys of each share the owner's hash tag.
"""

_LATER = """
local function number(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)')
  return tonumber(ms) or 0, tonumber(seq) or 0
end
local function later(a, b)
  local a_ms, a_seq = number(a)
  local b_ms, b_seq = number(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end
"""

SET_IF_LATER = (
    _LATER
    + """
for i = 1, #ARGV, 3 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not (old and later(old, ARGV[i + 1])) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
  end
end
"""
)
"""Hash; field, id, content of each item. Sets each unless a later event has."""

CORRECT = (
    _LATER
    + """
local changed = 0
for i = 2, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local newer = old and later(old, ARGV[1]) and later(old, ARGV[i + 1])
  if old ~= ARGV[i + 1] and not newer then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    changed = changed + 1
  end
end
return changed
"""
)
"""Hash; horizon; field, value of each item. Sets each unless an event later than it and than the horizon has."""

REMOVE = (
    _LATER
    + """
local removed = 0
for i = 2, #ARGV do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if old and not later(old, ARGV[1]) and redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return removed
"""
)
"""Hash, what it should be; horizon; fields. Removes those that should not be there, unless later than the horizon."""

SWEEP_LINKS = """
local removed = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local type, other = string.match(member, '^(.-)' .. ARGV[3] .. '(.*)$')
  local source, target = ARGV[2], other
  if ARGV[1] == 'in' then source, target = other, ARGV[2] end
  if not type or redis.call('HEXISTS', KEYS[2], source .. ARGV[3] .. type .. ARGV[3] .. target) == 0 then
    removed = removed + redis.call('ZREM', KEYS[1], member)
  end
end
return removed
"""
"""Links of a node, edges; direction, node, separator. Removes the links that no edge has."""
