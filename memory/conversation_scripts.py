"""The Lua scripts behind ``memory.conversations``."""

# KEYS: head, turns, sent, list, cited. ARGV: now, most turns kept, lifetime in ms (0: for ever), conversation id,
# idempotency key or "", title if there is none yet, then each turn and the passages it cites (ids, blanks between).
# Answers false when there is no such conversation, else the turns as stored: "number json". A resend answers with what
# the first sending stored, as far as it is kept. The head's `cited` follows `turns` unless it has stayed behind before
# (memory/cited.py).
APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if ARGV[5] ~= '' then
  local first = redis.call('ZSCORE', KEYS[3], ARGV[5])
  if first then
    local count = tonumber(redis.call('HGET', KEYS[1], 'turns'))
    local from = tonumber(first) - count - 1
    local kept = redis.call('LLEN', KEYS[2])
    return redis.call('LRANGE', KEYS[2], math.max(from, -kept), math.min(from + (#ARGV - 6) / 2 - 1, -1))
  end
end
local stored = {}
local first
local noted = redis.call('HGET', KEYS[1], 'cited') == redis.call('HGET', KEYS[1], 'turns')
for i = 7, #ARGV, 2 do
  local number = redis.call('HINCRBY', KEYS[1], 'turns', 1)
  first = first or number
  stored[#stored + 1] = number .. ' ' .. ARGV[i]
  redis.call('RPUSH', KEYS[2], stored[#stored])
  for passage in string.gmatch(ARGV[i + 1], '%S+') do
    redis.call('ZADD', KEYS[5], 0, passage .. ' ' .. ARGV[4] .. ' ' .. number)
  end
end
local last = tonumber(redis.call('HGET', KEYS[1], 'turns'))
if noted then redis.call('HSET', KEYS[1], 'cited', last) end
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[2]), -1)
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[3], first, ARGV[5]) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', last - tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'updated', ARGV[1])
if redis.call('HGET', KEYS[1], 'title') == '' then redis.call('HSET', KEYS[1], 'title', ARGV[6]) end
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[4])
if tonumber(ARGV[3]) > 0 then
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', tonumber(ARGV[1]) - tonumber(ARGV[3]))
end
return stored
"""

# KEYS: head, list. ARGV: now, lifetime in ms, conversation id, title.
CREATE = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'title', ARGV[4], 'created', ARGV[1], 'updated', ARGV[1], 'turns', 0, 'cited', 0)
  redis.call('ZADD', KEYS[2], ARGV[1], ARGV[3])
  if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return redis.call('HGETALL', KEYS[1])
"""

RENAME = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'title', ARGV[1])
return 1
"""

# KEYS: head, turns. ARGV: number before which the turns are (0: after the last), turns at most. Answers false when
# there is no such conversation. Turns are numbered without gaps, and the latest are kept.
SLICE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local next = tonumber(redis.call('HGET', KEYS[1], 'turns')) + 1
local to = -1
if tonumber(ARGV[1]) > 0 then to = tonumber(ARGV[1]) - next - 1 end
if to > -1 then to = -1 end
local kept = redis.call('LLEN', KEYS[2])
if tonumber(ARGV[2]) == 0 or to < -kept then return {} end
return redis.call('LRANGE', KEYS[2], math.max(to - tonumber(ARGV[2]) + 1, -kept), to)
"""
