--[[
expire_workers - the liveness tick: workers whose last report is too old are no longer ready, and
are forgotten an hour later.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  expired  {lost}  ids of the workers that just fell silent; absent when there is none
]]
local FORGET_MS = 3600000
local lost = redis.call("ZRANGEBYSCORE", K.ready, "-inf", string.format("%.0f", NOW))
if #lost > 0 then redis.call("ZREM", K.ready, unpack(lost)) end
local all = redis.call("HGETALL", K.workers)
for i = 1, #all, 2 do
  if cjson.decode(all[i + 1]).last_seen_ms <= NOW - FORGET_MS then
    redis.call("HDEL", K.workers, all[i])
  end
end
return reply("expired", { lost = #lost > 0 and lost or nil })
