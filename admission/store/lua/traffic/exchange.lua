--[[
exchange - keep what one process has running on each worker, and tell what all of them have. Who
fell silent is taken out first.

ARGV
  now_ms    int   0 = Redis TIME
  process   str
  counts    json  worker -> requests, all above 0; {} takes out what it told before
  lease_ms  int   how long that counts
RETURNS
  all  worker, requests, worker, requests ...
]]
local SUMS, OF, UNTIL = KEYS[1], KEYS[2], KEYS[3]
local process, counts, lease_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])

-- Make counts what the process has running, and change the sums by what is different.
local function set(name, text)
  local known = redis.call("HGET", OF, name) or "{}"
  if known == text then return end
  local before, after = cjson.decode(known), cjson.decode(text)
  for worker in pairs(before) do after[worker] = after[worker] or 0 end
  for worker, requests in pairs(after) do
    local more = requests - (before[worker] or 0)
    if more ~= 0 and redis.call("HINCRBY", SUMS, worker, more) <= 0 then
      redis.call("HDEL", SUMS, worker)
    end
  end
  if text == "{}" then
    redis.call("HDEL", OF, name)
  else
    redis.call("HSET", OF, name, text)
  end
end

for _, silent in ipairs(redis.call("ZRANGEBYSCORE", UNTIL, "-inf", NOW, "LIMIT", 0, 100)) do
  set(silent, "{}")
  redis.call("ZREM", UNTIL, silent)
end
set(process, counts)
if counts == "{}" then
  redis.call("ZREM", UNTIL, process)
else
  redis.call("ZADD", UNTIL, NOW + lease_ms, process)
end
return { "all", redis.call("HGETALL", SUMS) }
