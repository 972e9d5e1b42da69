"""The Lua scripts of who runs tasks: a lease is taken, renewed and given up, each time under its fencing token.

KEYS and what else holds for all of them: see ``task_scripts``.
"""

from memory.task_scripts import COMMON

_COMMON = (
    COMMON
    + """
-- error: encoded JSON string.
local function bury(id, error)
  redis.call('HSET', task(id), 'error', error)
  finish(id, 'dead')
  emit(EVENTS, 'task.dead', id, '"error":' .. error)
  emit(DEAD, 'task.dead', id, '"error":' .. error)
end

-- '' when the caller still holds the task, or else why not.
local function denied(id, fence)
  local f = redis.call('HMGET', task(id), 'status', 'fence')
  if not f[1] then return 'missing' end
  if f[2] == fence and f[1] == 'running' then return '' end
  if f[1] == 'cancelled' then return 'cancelled' end
  if f[2] == fence then return 'done:' .. f[1] end
  return 'lost'
end
"""
)

CLAIM = (
    _COMMON
    + """
local worker, lease_ms, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mine = {}
for i = 4, #ARGV do mine[ARGV[i]] = true end

local function give(entry, consumer)
  redis.call('XCLAIM', TASKS, GROUP, consumer, 0, entry, 'JUSTID')
end
local function park(id, side)
  local f = redis.call('HMGET', task(id), 'kind', 'entry')
  redis.call(side, root .. 'parked:' .. f[1], id)
  give(f[2], 'parked')
end
-- The commonest call of all: what is known is not asked for again. given: the entry is the worker's already.
local function take(id, given)
  local fields, at = redis.call('HGETALL', task(id)), {}
  for i = 1, #fields, 2 do at[fields[i]] = i + 1 end
  local status, seq, entry = fields[at.status], fields[at.seq], fields[at.entry]
  local fence = tonumber(fields[at.fence]) + 1
  local new = {attempts = text(tonumber(fields[at.attempts]) + 1), fence = text(fence), worker = worker,
    started_ms = text(now), updated_ms = text(now), status = 'running'}
  local changed = {}
  for name, value in pairs(new) do
    changed[#changed + 1], changed[#changed + 2] = name, value
    local place = at[name] or #fields + 2
    fields[place - 1], fields[place] = name, value
  end
  redis.call('HSET', task(id), unpack(changed))
  redis.call('ZADD', root .. 'leases', text(now + lease_ms), id)
  if not given then give(entry, worker) end
  redis.call('ZREM', root .. 'status:' .. status, id)
  redis.call('ZADD', root .. 'status:running', seq, id)
  tell(EVENTS, 'task.start', id, fields[at.kind], fields[at.owner], new.attempts, worker,
    '"worker":' .. cjson.encode(worker))
  return {1, fence, fields}
end

-- No lease and no wait is this long: the server's clock was set back since, and nobody must wait for the difference.
local far = now + math.max(120000, 2 * lease_ms)
for line, from_now in pairs({leases = lease_ms, delayed = 0}) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. line, text(far), '+inf', 'LIMIT', 0, 100)) do
    redis.call('ZADD', root .. line, text(now + from_now), id)
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'delayed', '-inf', text(now), 'LIMIT', 0, 100)) do
  requeue(id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'leases', '-inf', text(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', root .. 'leases', id)
  redis.call('HINCRBY', task(id), 'fence', 1)
  local f = redis.call('HMGET', task(id), 'attempts', 'worker')
  local why = cjson.encode('the lease of ' .. f[2] .. ' ran out in attempt ' .. f[1])
  emit(EVENTS, 'task.fail', id, '"error":' .. why)
  if tonumber(f[1]) >= most then
    bury(id, why)
  else
    move(id, 'queued')
    park(id, 'LPUSH')
  end
end
for kind in pairs(mine) do
  local id = redis.call('LPOP', root .. 'parked:' .. kind)
  local owner = not id and redis.call('ZRANGEBYSCORE', lines(kind), '-inf', text(now), 'LIMIT', 0, 1)[1]
  if owner then
    id = redis.call('LPOP', line(kind, owner))
    redis.call('ZADD', lines(kind), text(now), owner)
    shorten(kind, owner)
  end
  if id then return take(id) end
end
for _ = 1, 100 do
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', 1, 'STREAMS', TASKS, '>')
  if not reply then
    local due = 0
    local waiting = {root .. 'delayed', root .. 'leases'}
    for kind in pairs(mine) do waiting[#waiting + 1] = lines(kind) end
    for _, key in ipairs(waiting) do
      local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
      if first and (due == 0 or tonumber(first) < due) then due = tonumber(first) end
    end
    local last = '0-0'
    local info = redis.call('XINFO', 'STREAM', TASKS)
    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
    return {0, last, due > 0 and math.max(due - now, 1) or 0}
  end
  local entry, fields = reply[1][2][1][1], reply[1][2][1][2]
  local id
  for i = 1, #fields, 2 do if fields[i] == 'task_id' then id = fields[i + 1] end end
  local f = id and redis.call('HMGET', task(id), 'status', 'entry', 'kind', 'owner') or {false}
  if not f[1] then
    -- Somebody else's entry: kept where it can be looked at, out of the way of the others.
    redis.call('XADD', DEAD, '*', 'type', 'error', 'ts', text(now), 'agent', worker, 'task_id', id or '', 'data',
      cjson.encode({error = 'an entry without a task', stream = TASKS, id = entry}))
    redis.call('XACK', TASKS, GROUP, entry)
  elseif f[1] ~= 'queued' or f[2] ~= entry then
    redis.call('XACK', TASKS, GROUP, entry)
  elseif redis.call('ZSCORE', lines(f[3]), f[4]) then
    redis.call('RPUSH', line(f[3], f[4]), id)
    give(entry, 'parked')
  elseif mine[f[3]] then
    return take(id, true)
  else
    park(id, 'RPUSH')
  end
end
return {0, '', 1}
"""
)
"""ARGV: worker, lease in ms, most attempts, kinds. Returns {1, fence, fields}, or {0, last id, ms until a lease or a
delay ends (0: there is none)}; an empty last id asks to be called again at once."""

RENEW = (
    _COMMON
    + """
local id, fence, lease_ms, progress = unpack(ARGV)
local no = denied(id, fence)
if no ~= '' then return no end
redis.call('ZADD', root .. 'leases', text(now + tonumber(lease_ms)), id)
if progress ~= '' then redis.call('HSET', task(id), 'progress', progress, 'updated_ms', text(now)) end
return ''
"""
)
"""ARGV: id, fence, lease in ms, progress (JSON) or ''. Returns '' or why not."""

COMPLETE = (
    _COMMON
    + """
local id, fence, result = unpack(ARGV)
local no = denied(id, fence)
if no == 'done:complete' then return '' end
if no ~= '' then return no end
local f = redis.call('HMGET', task(id), 'entry', 'seq', 'started_ms', 'kind', 'owner', 'attempts', 'worker')
redis.call('XACK', TASKS, GROUP, f[1])
redis.call('ZREM', root .. 'leases', id)
redis.call('ZADD', root .. 'finished', text(now), id)
redis.call('ZREM', root .. 'status:running', id)
redis.call('ZADD', root .. 'status:complete', f[2], id)
redis.call('HSET', task(id), 'result', result, 'status', 'complete', 'finished_ms', text(now), 'updated_ms', text(now))
redis.call('HDEL', task(id), 'error')
local seconds = string.format('%.3f', (now - tonumber(f[3])) / 1000)
tell(EVENTS, 'task.complete', id, f[4], f[5], f[6], f[7], '"seconds":' .. seconds .. ',"result":' .. result)
return ''
"""
)
"""ARGV: id, fence, result (JSON). Returns '' or why not."""

FAIL = (
    _COMMON
    + """
local id, fence, error, delay_ms, most = unpack(ARGV)
local no = denied(id, fence)
if no == 'done:retrying' or no == 'done:dead' or no == 'done:queued' then return '' end
if no ~= '' then return no end
emit(EVENTS, 'task.fail', id, '"error":' .. error)
if tonumber(redis.call('HGET', task(id), 'attempts')) >= tonumber(most) then
  bury(id, error)
else
  redis.call('HSET', task(id), 'error', error)
  settle(id)
  redis.call('ZADD', root .. 'delayed', text(now + tonumber(delay_ms)), id)
  move(id, 'retrying')
end
return ''
"""
)
"""ARGV: id, fence, error (JSON string), delay in ms, most attempts. Returns '' or why not."""

RELEASE = (
    _COMMON
    + """
local id, fence = unpack(ARGV)
local no = denied(id, fence)
if no ~= '' then return no end
redis.call('HINCRBY', task(id), 'attempts', -1)
redis.call('HINCRBY', task(id), 'fence', 1)
requeue(id)
return ''
"""
)
"""ARGV: id, fence. Gives a running task back as if it had not been claimed. Returns '' or why not."""

POSTPONE = (
    _COMMON
    + """
local id, fence, delay_ms, why = unpack(ARGV)
local no = denied(id, fence)
if no ~= '' then return no end
redis.call('HINCRBY', task(id), 'attempts', -1)
redis.call('HINCRBY', task(id), 'fence', 1)
redis.call('ZREM', root .. 'leases', id)
local f = redis.call('HMGET', task(id), 'kind', 'owner', 'entry')
redis.call('XCLAIM', TASKS, GROUP, 'parked', 0, f[3], 'JUSTID')
redis.call('LPUSH', line(f[1], f[2]), id)
redis.call('ZADD', lines(f[1]), text(now + tonumber(delay_ms)), f[2])
move(id, 'queued')
emit(EVENTS, 'task.retry', id, '"waits_ms":' .. delay_ms .. ',"why":' .. why)
return ''
"""
)
"""ARGV: id, fence, delay in ms, why (JSON string). Puts a running task at the head of the line of its owner and kind,
as if it had not been claimed; nobody of that line is handed out before the delay is over. Returns '' or why not."""

SCRIPTS = {
    "claim": CLAIM,
    "renew": RENEW,
    "complete": COMPLETE,
    "fail": FAIL,
    "release": RELEASE,
    "postpone": POSTPONE,
}
