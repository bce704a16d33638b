--[[
expire - the tick: end what is due, offer what is free, and say when the next deadline comes.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
RETURNS
  settled  {next_ms}  ms until the next deadline, absent when there is none
]]
end_due()
offer_free()
local next_ms
local keys = { K.drafts, K.sessions, K.finishing, K.presence, K.skipped, K.unused, K.timeouts }
if redis.call("ZCARD", K.queue) > 0 then keys[#keys + 1] = K.idle end
for _, key in ipairs(keys) do
  local first = tonumber(redis.call("ZRANGE", key, 0, 0, "WITHSCORES")[2])
  if first then next_ms = math.min(next_ms or first, first) end
end
return reply("settled", { next_ms = next_ms and math.max(0, next_ms - NOW) })
