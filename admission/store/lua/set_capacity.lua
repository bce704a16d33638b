--[[
set_capacity - change how many slots there are. More are offered at once; fewer evict nobody, they
only stop admitting.

ARGV
  now_ms    int   0 = Redis TIME
  policy    json  the pool's settings
  capacity  json  a number, "auto", or null for the service's own setting
RETURNS
  set  {capacity}
]]
keep_setting("capacity", cjson.decode(ARGV[3]))
end_due()
offer_free()
return reply("set", { capacity = capacity() })
