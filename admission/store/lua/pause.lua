--[[
pause - stop taking and admitting anybody, or go on; who holds a slot keeps it, who waits keeps the
place.

ARGV
  now_ms  int   0 = Redis TIME
  policy  json  the pool's settings
  paused  json  true, false, or null for the service's own setting
RETURNS
  paused   null
  resumed  null
]]
keep_setting("paused", cjson.decode(ARGV[3]))
end_due()
offer_free()
return reply(POLICY.paused and "paused" or "resumed")
