"""The Lua scripts of who runs tasks: a lease is taken, renewed and given up, each time under its fencing token.

KEYS and what else holds for all of them: see ``task_scripts``.
"""

from memory.task_records import FIELDS
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

-- '' when the caller with this token still holds the task, or else why not.
local function refusal(status, latest, fence)
  if not status then return 'missing' end
  if latest == fence and status == 'running' then return '' end
  if status == 'cancelled' then return 'cancelled' end
  if latest == fence then return 'done:' .. status end
  return 'lost'
end
local function denied(id, fence)
  local f = redis.call('HMGET', task(id), 'status', 'fence')
  return refusal(f[1], f[2], fence)
end
"""
)

_CLAIMING = """
local function give(entry, consumer)
  redis.call('XCLAIM', TASKS, GROUP, consumer, 0, entry, 'JUSTID')
end
local function park(id, kind, entry, side)
  redis.call(side, root .. 'parked:' .. kind, id)
  give(entry, 'parked')
end

-- No lease and no wait is this long: the server's clock was set back since, and nobody must wait for the difference.
-- Only CLAIM looks for it; every process that runs tasks calls that now and then, however busy it is.
local function pull_in(lease_ms)
  local far = text(now + math.max(120000, 2 * lease_ms))
  for line, from_now in pairs({leases = lease_ms, delayed = 0}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. line, far, '+inf', 'LIMIT', 0, 100)) do
      redis.call('ZADD', root .. line, text(now + from_now), id)
    end
  end
end

-- What waited and is due goes back on the stream; what a dead worker held goes to the head of its kind, or is buried.
local function collect(most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'delayed', '-inf', at, 'LIMIT', 0, 100)) do
    requeue(id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'leases', '-inf', at, 'LIMIT', 0, 100)) do
    redis.call('ZREM', root .. 'leases', id)
    redis.call('HINCRBY', task(id), 'fence', 1)
    local f = redis.call('HMGET', task(id), 'attempts', 'worker', 'kind', 'entry')
    local why = cjson.encode('the lease of ' .. f[2] .. ' ran out in attempt ' .. f[1])
    emit(EVENTS, 'task.fail', id, '"error":' .. why)
    if tonumber(f[1]) >= most then
      bury(id, why)
    else
      move(id, 'queued')
      park(id, f[3], f[4], 'LPUSH')
    end
  end
end

-- {1, fence, values}, or {0} when there is none, or {0, '', 1} after a hundred entries that led to none. The commonest
-- call of all: what is known is not asked for again.
local function claim(worker, lease_ms, most, kinds)
  collect(most)
  local function look(id) return redis.call('HMGET', task(id), FIELDS) end
  local function take(id, f, is_mine)
    local status, fence, seq, entry, attempts, kind, owner = unpack(f, 1, 7)
    f[1], f[2], f[5], f[8], f[9], f[10] = 'running', text(fence + 1), text(attempts + 1), worker, at, at
    redis.call('HSET', task(id), 'status', f[1], 'fence', f[2], 'attempts', f[5], 'worker', worker, 'updated_ms', at,
      'started_ms', at)
    redis.call('ZADD', root .. 'leases', text(now + lease_ms), id)
    if not is_mine then give(entry, worker) end
    redis.call('ZREM', root .. 'status:' .. status, id)
    redis.call('ZADD', root .. 'status:running', seq, id)
    tell(EVENTS, 'task.start', id, kind, owner, f[5], worker, '"worker":' .. cjson.encode(worker))
    return {1, f[2], f}
  end

  local mine, aside = {}, {}
  for i, kind in ipairs(kinds) do
    mine[kind], aside[2 * i - 1], aside[2 * i] = true, root .. 'parked:' .. kind, lines(kind)
  end
  if #aside > 0 and redis.call('EXISTS', unpack(aside)) > 0 then
    for _, kind in ipairs(kinds) do
      local id = redis.call('LPOP', root .. 'parked:' .. kind)
      local owner = not id and redis.call('ZRANGEBYSCORE', lines(kind), '-inf', at, 'LIMIT', 0, 1)[1]
      if owner then
        id = redis.call('LPOP', line(kind, owner))
        redis.call('ZADD', lines(kind), at, owner)
        shorten(kind, owner)
      end
      if id then return take(id, look(id)) end
    end
  end
  for _ = 1, 100 do
    local reply = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', 1, 'STREAMS', TASKS, '>')
    if not reply then return {0} end
    local entry, words = reply[1][2][1][1], reply[1][2][1][2]
    local id
    for i = 1, #words, 2 do if words[i] == 'task_id' then id = words[i + 1] end end
    local f = id and look(id) or {false}
    local status, kind, owner = f[1], f[6], f[7]
    if not status then
      -- Somebody else's entry: kept where it can be looked at, out of the way of the others.
      redis.call('XADD', DEAD, '*', 'type', 'error', 'ts', at, 'agent', worker, 'task_id', id or '', 'data',
        cjson.encode({error = 'an entry without a task', stream = TASKS, id = entry}))
      redis.call('XACK', TASKS, GROUP, entry)
    elseif status ~= 'queued' or f[4] ~= entry then
      redis.call('XACK', TASKS, GROUP, entry)
    elseif redis.call('ZSCORE', lines(kind), owner) then
      redis.call('RPUSH', line(kind, owner), id)
      give(entry, 'parked')
    elseif mine[kind] then
      return take(id, f, true)
    else
      park(id, kind, entry, 'RPUSH')
    end
  end
  return {0, '', 1}
end
""".replace("FIELDS", ", ".join(f"'{name}'" for name in FIELDS))

CLAIM = (
    _COMMON
    + _CLAIMING
    + """
local worker, lease_ms, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local kinds = {unpack(ARGV, 4)}
pull_in(lease_ms)
local reply = claim(worker, lease_ms, most, kinds)
if #reply > 1 then return reply end
local due = 0
local waiting = {root .. 'delayed', root .. 'leases'}
for _, kind in ipairs(kinds) do waiting[#waiting + 1] = lines(kind) end
for _, key in ipairs(waiting) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if first and (due == 0 or tonumber(first) < due) then due = tonumber(first) end
end
local last = '0-0'
local info = redis.call('XINFO', 'STREAM', TASKS)
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
return {0, last, due > 0 and math.max(due - now, 1) or 0}
"""
)
"""ARGV: worker, lease in ms, most attempts, kinds. Returns {1, fence, values of ``FIELDS``}, or {0, last id, ms until a
lease or a delay ends (0: there is none)}; an empty last id asks to be called again at once."""

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

_COMPLETING = """
local function complete(id, fence, result)
  local f = redis.call('HMGET', task(id), 'status', 'fence', 'entry', 'seq', 'started_ms', 'kind', 'owner', 'attempts',
    'worker', 'error')
  local no = refusal(f[1], f[2], fence)
  if no ~= '' then return no end
  redis.call('XACK', TASKS, GROUP, f[3])
  redis.call('ZREM', root .. 'leases', id)
  redis.call('ZADD', root .. 'finished', at, id)
  redis.call('ZREM', root .. 'status:running', id)
  redis.call('ZADD', root .. 'status:complete', f[4], id)
  redis.call('HSET', task(id), 'result', result, 'status', 'complete', 'finished_ms', at, 'updated_ms', at)
  if f[10] then redis.call('HDEL', task(id), 'error') end
  local seconds = string.format('%.3f', (now - tonumber(f[5])) / 1000)
  tell(EVENTS, 'task.complete', id, f[6], f[7], f[8], f[9], '"seconds":' .. seconds .. ',"result":' .. result)
  return ''
end
"""

COMPLETE = (
    _COMMON
    + _COMPLETING
    + """
local no = complete(ARGV[1], ARGV[2], ARGV[3])
return no == 'done:complete' and '' or no
"""
)
"""ARGV: id, fence, result (JSON). Returns '' or why not."""

COMPLETE_AND_CLAIM = (
    _COMMON
    + _COMPLETING
    + _CLAIMING
    + """
local no = complete(ARGV[1], ARGV[2], ARGV[3])
-- A call that comes again after its reply was lost takes nothing more.
if no == 'done:complete' then return '' end
if no ~= '' then return no end
local reply = claim(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), {unpack(ARGV, 7)})
return reply[1] == 1 and reply or ''
"""
)
"""ARGV: id, fence, result (JSON), then as of ``CLAIM``. Returns {1, fence, values} of the next task, '' when there is
none, or why the result was refused; then nothing is taken either."""

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
    "complete_and_claim": COMPLETE_AND_CLAIM,
    "fail": FAIL,
    "release": RELEASE,
    "postpone": POSTPONE,
}
