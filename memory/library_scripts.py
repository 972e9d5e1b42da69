"""The steps of the library and of pruning that must not be torn apart, as scripts of Redis.

A page and a reading of it (one revision) are named by their parts, joined by the character 31 (``keys.pages``).
"""

# KEYS: pages, stale, then each page. ARGV: now, then for each page its name, revision, number of passages and links.
EXPECT = """
for i = 3, #KEYS do
  local at = 2 + 4 * (i - 3)
  local name, revision = ARGV[at], ARGV[at + 1]
  local before = redis.call('HGET', KEYS[i], 'revision')
  if before and before ~= revision then redis.call('ZADD', KEYS[2], ARGV[1], name .. '\\31' .. before) end
  redis.call('ZREM', KEYS[2], name .. '\\31' .. revision)
  redis.call('HSET', KEYS[i], 'revision', revision, 'passages', ARGV[at + 2], 'links', ARGV[at + 3])
  redis.call('ZADD', KEYS[1], ARGV[1], name)
end
"""

# KEYS: each page. ARGV: for each its revision and links. Where it was read again, or forgotten, nothing happens.
LINK = """
for i = 1, #KEYS do
  if redis.call('HGET', KEYS[i], 'revision') == ARGV[2 * i - 1] then
    redis.call('HSET', KEYS[i], 'links', ARGV[2 * i])
  end
end
"""

# KEYS: pages, then each page. ARGV: now, then for each page its name and revision. Answers 1 for each that is kept at
# that revision, which counts as read now, else 0.
TOUCH = """
local same = {}
for i = 2, #KEYS do
  local at = 2 + 2 * (i - 2)
  same[i - 1] = redis.call('HGET', KEYS[i], 'revision') == ARGV[at + 1] and 1 or 0
  if same[i - 1] == 1 then redis.call('ZADD', KEYS[1], ARGV[1], ARGV[at]) end
end
return same
"""

# KEYS: pages, stale, then for each page its hash and its two bitmaps. ARGV: now, then for each page its name, revision
# and the time of its reading as it was looked up. Answers 1 for each that was forgotten, 0 where it was read meanwhile.
FORGET = """
local gone = {}
for i = 3, #KEYS, 3 do
  local at = 2 + (i - 3)
  local name, revision = ARGV[at], ARGV[at + 1]
  local read = tonumber(redis.call('ZSCORE', KEYS[1], name) or -1)
  local same = read == tonumber(ARGV[at + 2]) and redis.call('HGET', KEYS[i], 'revision') == revision
  if same then
    redis.call('ZREM', KEYS[1], name)
    redis.call('DEL', KEYS[i], KEYS[i + 1], KEYS[i + 2])
    redis.call('ZADD', KEYS[2], ARGV[1], name .. '\\31' .. revision)
  end
  gone[#gone + 1] = same and 1 or 0
end
return gone
"""

# KEYS: a page and the two bitmaps of a reading of it. ARGV: the reading's revision. Answers 1 when it is not the
# page's revision, whose progress then goes; 0 when it is.
IS_STALE = """
if redis.call('HGET', KEYS[1], 'revision') == ARGV[1] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""

# KEYS: stale. ARGV: a reading, and since when it is stale as it was looked up. Off the list, unless that changed.
SETTLE = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or -1) == tonumber(ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
"""
