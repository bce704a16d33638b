--[[
drain - the history up to this entry is in SQL.

ARGV
  now_ms  int  0 = Redis TIME
  entry   str
RETURNS
  drained  up to here, or further
]]
local entry = ARGV[2]
local known = redis.call("HGET", FLEET.drained, "entry") or "0-0"
if follows(entry, known) then redis.call("HSET", FLEET.drained, "entry", entry) end
return { "drained" }
