--[[
list - every tick with its lease and its last run; changes nothing.

ARGV
  now_ms  int   0 = Redis TIME
RETURNS
  ticks  now_ms, then tick, facts (JSON), tick, ...
]]
return { "ticks", NOW, redis.call("HGETALL", KEYS[1]) }
