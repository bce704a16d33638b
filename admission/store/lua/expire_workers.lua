--[[
expire_workers - the liveness tick: workers whose last report is too old, and that nobody vouches
for, are no longer ready, and are forgotten an hour later; those an admin revoked after a month.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  expired  {lost}  ids of the workers that just fell silent; absent when there is none
]]
local FORGET_MS, FORGET_REVOKED_MS = 3600000, 30 * 86400000
local lost = redis.call("ZRANGEBYSCORE", K.ready, "-inf", string.format("%.0f", NOW))
if #lost > 0 then redis.call("ZREM", K.ready, unpack(lost)) end
local all = redis.call("HGETALL", K.workers)
for i = 1, #all, 2 do
  local facts = cjson.decode(all[i + 1])
  local seen_ms = math.max(facts.last_seen_ms, facts.vouched_ms or 0)
  if seen_ms <= NOW - (facts.revoked and FORGET_REVOKED_MS or FORGET_MS) then
    redis.call("HDEL", K.workers, all[i])
  end
end
return reply("expired", { lost = #lost > 0 and lost or nil })
