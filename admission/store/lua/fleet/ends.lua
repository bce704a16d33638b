--[[
ends - the oldest entry that the history still holds, and the last it ever got.

ARGV
  now_ms  int  0 = Redis TIME
RETURNS
  ends  two entries, "0-0" where there is none
]]
local first = redis.call("XRANGE", FLEET.history, "-", "+", "COUNT", 1)
local last = redis.call("XREVRANGE", FLEET.history, "+", "-", "COUNT", 1)
return { "ends", first[1] and first[1][1] or "0-0", last[1] and last[1][1] or "0-0" }
