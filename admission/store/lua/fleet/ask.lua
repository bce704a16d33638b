--[[
ask - append a command for whoever takes it, once for each id within known_ms.

ARGV
  now_ms       int   0 = Redis TIME
  id           str   of the command
  words        str   digest of what it says
  command      json
  waiting_max  int   commands that nobody took
  known_max    int   commands of the last known_ms
  known_ms     int
RETURNS
  asked  it waits
  known  it was asked before
  other  another command had this id
  full   there is no room for one more
]]
local id, words, command = ARGV[2], ARGV[3], ARGV[4]
local waiting_max, known_max, known_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local old = redis.call("ZRANGEBYSCORE", FLEET.asked, "-inf", NOW - known_ms, "LIMIT", 0, 100)
for _, over in ipairs(old) do
  redis.call("ZREM", FLEET.asked, over)
  redis.call("HDEL", FLEET.words, over)
end
local known = redis.call("HGET", FLEET.words, id)
if known then return { known == words and "known" or "other" } end
if redis.call("XLEN", FLEET.commands) >= waiting_max
  or redis.call("ZCARD", FLEET.asked) >= known_max then return { "full" } end
redis.call("ZADD", FLEET.asked, NOW, id)
redis.call("HSET", FLEET.words, id, words)
redis.call("XADD", FLEET.commands, "*", "c", command)
return { "asked" }
