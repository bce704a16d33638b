--[[
remember - keep something for the next tick.

ARGV
  now_ms  int  0 = Redis TIME
  tick    str
  epoch   int
  name    str
  value   str  any bytes
RETURNS
  kept    it is
  fenced  the tick's lease is another's
]]
local tick, epoch, name, value = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
redis.call("HSET", FLEET.memory, name, value)
return { "kept" }
