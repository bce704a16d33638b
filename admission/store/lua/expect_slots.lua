--[[
expect_slots - while there are no slots, tell when the first come, so that who waits can be told. It
is believed for 30 s, and no longer than there are none.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  in_ms   int   until then
  slots   int   so many
RETURNS
  told  null
]]
local in_ms, slots = tonumber(ARGV[3]), ARGV[4]
redis.call("HSET", K.pool, "coming", slots .. " " .. exact(NOW + in_ms) .. " " .. exact(NOW))
end_due()
offer_free()
return reply("told")
