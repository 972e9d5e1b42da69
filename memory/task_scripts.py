"""The Lua scripts of who submits tasks and follows them; those of who runs them are in ``lease_scripts``.

All run on Redis 6.2 and on a cluster: every key lies in the slot of ``tasks/v1``. KEYS of each: the task stream, the
stream for events, the stream for dead letters. The keys of single tasks are made from the first, inside its hash tag.
Times are the server's own.
"""

COMMON = """
local TASKS, EVENTS, DEAD, GROUP = KEYS[1], KEYS[2], KEYS[3], 'workers'
local root = '{' .. TASKS .. '}:'
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local function text(number) return string.format('%.0f', number) end
local at = text(now)
local function task(id) return root .. 'task:' .. id end

-- One event about a task. extra: JSON members, already encoded.
local function tell(stream, type, id, kind, owner, attempts, worker, extra)
  local data = cjson.encode({kind = kind, owner = owner, attempts = tonumber(attempts)})
  if extra then data = string.sub(data, 1, -2) .. ',' .. extra .. '}' end
  return redis.call('XADD', stream, '*', 'type', type, 'ts', at, 'agent', worker or '', 'task_id', id,
    'data', data)
end

local function emit(stream, type, id, extra)
  local f = redis.call('HMGET', task(id), 'kind', 'owner', 'attempts', 'worker')
  return tell(stream, type, id, f[1], f[2], f[3], f[4], extra)
end

local function move(id, status)
  local f = redis.call('HMGET', task(id), 'status', 'seq')
  if f[1] then redis.call('ZREM', root .. 'status:' .. f[1], id) end
  redis.call('ZADD', root .. 'status:' .. status, f[2], id)
  redis.call('HSET', task(id), 'status', status, 'updated_ms', at)
end

-- The entry on the task stream is done with; no lease, no place in any line.
local function settle(id)
  local entry = redis.call('HGET', task(id), 'entry')
  if entry then redis.call('XACK', TASKS, GROUP, entry) end
  redis.call('ZREM', root .. 'leases', id)
  redis.call('ZREM', root .. 'delayed', id)
end

local function finish(id, status)
  settle(id)
  redis.call('HSET', task(id), 'finished_ms', at)
  redis.call('ZADD', root .. 'finished', at, id)
  move(id, status)
end

-- Tasks of one owner and kind that wait for leave to run, in order, and the kinds' owners by when to look again.
local function line(kind, owner) return root .. 'line:' .. kind .. ':' .. owner end
local function lines(kind) return root .. 'lines:' .. kind end
local function shorten(kind, owner)
  if redis.call('EXISTS', line(kind, owner)) == 0 then redis.call('ZREM', lines(kind), owner) end
end

local function requeue(id)
  settle(id)
  move(id, 'queued')
  redis.call('HSET', task(id), 'entry', emit(TASKS, 'task.retry', id))
end
"""
"""What every script of the queue begins with: names, events, and how a task goes from one status to another."""

SUBMIT = (
    COMMON
    + """
local id, kind, owner, payload, data, key, keep_ms = unpack(ARGV)
if key ~= '' then
  local known = redis.call('GET', root .. 'idem:' .. key)
  local fields = known and redis.call('HGETALL', task(known)) or {}
  if #fields > 0 then return {known, 0, fields} end
end
local holder = redis.call('HGET', task(id), 'owner')
if holder then
  if holder ~= owner then return {'', 0, {}} end
  return {id, 0, redis.call('HGETALL', task(id))}
end
local seq = text(redis.call('INCR', root .. 'seq'))
redis.call('ZADD', root .. 'owner:' .. owner, seq, id)
redis.call('ZADD', root .. 'all', seq, id)
redis.call('ZADD', root .. 'status:queued', seq, id)
local entry = redis.call('XADD', TASKS, '*', 'type', 'task.submit', 'ts', at, 'agent', '', 'task_id', id, 'data', data)
redis.call('HSET', task(id), 'id', id, 'kind', kind, 'owner', owner, 'payload', payload, 'attempts', '0', 'fence', '0',
  'seq', seq, 'created_ms', at, 'updated_ms', at, 'status', 'queued', 'entry', entry)
if key ~= '' then
  redis.call('SET', root .. 'idem:' .. key, id, 'PX', keep_ms)
  redis.call('HSET', task(id), 'idem', key)
end
return {id, redis.call('XLEN', TASKS), at}
"""
)
"""ARGV: id, kind, owner, payload (JSON), the event's data (JSON), idempotency digest or '', its life in ms. Returns
{id, or '' for one that another owner has; length of the stream or 0; fields of a task that was there, or else now}."""

CANCEL = (
    COMMON
    + """
local id = ARGV[1]
local f = redis.call('HMGET', task(id), 'status', 'kind', 'owner')
if not f[1] then return 0 end
if f[1] == 'queued' or f[1] == 'retrying' or f[1] == 'running' then
  redis.call('HINCRBY', task(id), 'fence', 1)
  redis.call('LREM', root .. 'parked:' .. f[2], 0, id)
  redis.call('LREM', line(f[2], f[3]), 0, id)
  shorten(f[2], f[3])
  finish(id, 'cancelled')
  emit(EVENTS, 'task.cancel', id)
end
return 1
"""
)
"""ARGV: id. Returns 0 for an unknown task."""

RETRY = (
    COMMON
    + """
local id = ARGV[1]
local status = redis.call('HGET', task(id), 'status')
if not status then return '' end
if status == 'dead' or status == 'cancelled' then
  redis.call('HINCRBY', task(id), 'fence', 1)
  redis.call('HSET', task(id), 'attempts', 0)
  redis.call('HDEL', task(id), 'error', 'finished_ms', 'progress')
  redis.call('ZREM', root .. 'finished', id)
  requeue(id)
end
return status
"""
)
"""ARGV: id. Sends a dead or cancelled task back. Returns the status that it had, '' for an unknown task."""

PRUNE = (
    COMMON
    + """
local gone = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', root .. 'finished', '-inf', text(now - tonumber(ARGV[1])), 'LIMIT', 0,
    500)) do
  local f = redis.call('HMGET', task(id), 'status', 'owner', 'idem')
  redis.call('ZREM', root .. 'finished', id)
  if f[1] then
    redis.call('ZREM', root .. 'status:' .. f[1], id)
    redis.call('ZREM', root .. 'owner:' .. f[2], id)
    redis.call('ZREM', root .. 'all', id)
    if f[3] then redis.call('DEL', root .. 'idem:' .. f[3]) end
    redis.call('DEL', task(id))
  end
  gone = gone + 1
end
return gone
"""
)
"""ARGV: age in ms. Forgets up to 500 tasks that ended longer ago. Returns how many."""

SCRIPTS = {"submit": SUBMIT, "cancel": CANCEL, "retry": RETRY, "prune": PRUNE}

RELAY = """
local last = redis.call('GET', KEYS[2]) or '0-0'
local function number(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local lm, ls = number(last)
local i = 1
while i <= #ARGV do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  local ms, seq = number(id)
  if ms > lm or (ms == lm and seq > ls) then
    local add = {'XADD', KEYS[1], '*'}
    for j = i + 2, i + 1 + count do add[#add + 1] = ARGV[j] end
    redis.call(unpack(add))
    lm, ls, last = ms, seq, id
  end
  i = i + 2 + count
end
redis.call('SET', KEYS[2], last)
return last
"""
"""Copy outbox entries to their stream, each once. KEYS: stream, its marker. ARGV: id, number of words, words …; in the
outbox's order. Returns the marker: everything up to it has arrived."""
