--[[
offer - what a provider offers, and when it was asked; "" takes a provider out that is no more.

ARGV
  now_ms    int   0 = Redis TIME
  tick      str
  epoch     int
  provider  str
  offers    json
RETURNS
  kept    it is
  fenced  the tick's lease is another's
]]
local tick, epoch, provider, offers = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if fenced(FLEET.ticks, tick, epoch) then return { "fenced" } end
if offers == "" then
  redis.call("HDEL", FLEET.offers, provider)
else
  redis.call("HSET", FLEET.offers, provider, string.format("%d %s", NOW, offers))
end
return { "kept" }
